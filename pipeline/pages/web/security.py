"""Authorization of changes, and the security headers of every answer."""

import hmac
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import TokenUnusable
from pipeline.pages.card.card_page import policy
from recipes.regular import FileRefused, read_text

READS = frozenset({"GET", "HEAD", "OPTIONS"})

MIN_TOKEN, MAX_TOKEN = 16, 4096
"""Characters; shorter ones can be guessed, and no header is longer."""

MAX_BODY_BYTES = 16 << 10
"""Of a request that writes; those we know have a few hundred."""

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of every answer that does not set them itself: no scripts, no frames, nothing from elsewhere."""

CARD_POLICY = f"{policy()}; frame-ancestors 'none'"
"""Of a card's file, whose style is inside it."""


def read_token(file: Path | None, environment: str | None) -> str | None:
    """The token in a file, else in the environment, else None; one that is weak is a TokenUnusable."""
    where, token = ("$ENGINERY_TOKEN", environment) if file is None else (str(file), None)
    if file is not None:
        try:
            token = read_text(file).strip()
        except FileRefused as exc:
            raise TokenUnusable(
                f"the token cannot be read: {exc}; give a file with the token in it"
            ) from None
    # an empty variable is none; an empty file is a mistake
    if token is None or (token == "" and file is None):
        return None
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or any(c.isspace() for c in token):
        raise TokenUnusable(
            f"the token in {where} has {len(token)} characters; give {MIN_TOKEN} to {MAX_TOKEN} ASCII "
            "characters without spaces, e.g. of `openssl rand -hex 32`"
        )
    return token


def with_heads(app: ASGIApp) -> ASGIApp:
    """Answers HEAD wherever GET is answered; the server leaves the body out."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["type"] == "http" and scope["method"] == "HEAD"
        await app({**scope, "method": "GET"} if head else scope, receive, send)

    return answered


class Guard:
    """Lets nothing write without the token, before a body is read; adds the headers to every answer."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._expected = None if token is None else sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # a card sets its own policy
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = None if scope["method"] in READS else self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        if self._expected is None:
            return _refused(403, "this server is read-only; start it with a token to allow changes")
        way, _, offered = headers.get("authorization", "").partition(" ")
        # digests are as long as each other, so that the time taken says nothing about the token
        right = hmac.compare_digest(sha256(offered.strip().encode()).digest(), self._expected)
        if way.lower() != "bearer" or not right:
            return _refused(401, "a change needs the token: send `Authorization: Bearer TOKEN`")
        length = headers.get("content-length", "")
        # a chunked body has no length, and could be of any
        if not length.isdecimal():
            return _refused(411, "send Content-Length")
        if int(length) > MAX_BODY_BYTES:
            return _refused(413, f"the body has {length} bytes; at most {MAX_BODY_BYTES} are read")
        return None


def _refused(status: int, message: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"kind": "Refused", "message": message}}, status, headers)
