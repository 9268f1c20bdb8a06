"""Tells subscribers by HTTP, signed as Standard Webhooks say: https://www.standardwebhooks.com."""

import email.utils
import os
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from artifacts.errors import SubscriptionRefused
from artifacts.notify.message import Answer, body, message_id
from artifacts.notify.outbox import Due
from artifacts.notify.subscription import checked_scheme, host_of, is_elsewhere, looked_up

TIMEOUT_S = 10.0
"""Without a byte from the receiver."""

GONE = 410
"""A receiver that answers so wants no more of it."""


def tell(due: Due) -> Answer:
    """One POST with the event; a redirect is a failure, because the signed message would go elsewhere."""
    target, secret = due.subscription.target, due.subscription.secret or ""
    try:
        url = checked_scheme(looked_up(target, os.environ) if is_elsewhere(target) else target)
        signer = _signer(looked_up(secret, os.environ), secret)
    except SubscriptionRefused as exc:
        return Answer(problem=str(exc))
    return _post(url, _headers(due, signer, datetime.now(UTC)), body(due.event))


def _post(url: str, headers: dict[str, str], content: str) -> Answer:
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream("POST", url, content=content.encode(), headers=headers) as response,
        ):  # what it says in the body interests nobody, however long it is
            return _answer(response, host_of(url))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:  # their texts may hold the address
        return Answer(problem=f"{host_of(url)}: {type(exc).__name__}; see that it can be reached from here")


def _headers(due: Due, signer: Webhook, at: datetime) -> dict[str, str]:
    named = message_id(due.event)
    return {
        "content-type": "application/json",
        "user-agent": "enginery",
        "webhook-id": named,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signer.sign(named, at, body(due.event)),
    }


def _signer(secret: str, where: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, RuntimeError):  # no base64, or nothing in it
        raise SubscriptionRefused(
            f"{where} holds no webhook secret; make one with `enginery registry subscribe --new-secret FILE`"
        ) from None


def _answer(response: httpx.Response, host: str) -> Answer:
    status = response.status_code
    if 200 <= status < 300:
        return Answer()
    if status == GONE:
        return Answer(problem=f"{host} answers 410: it wants no more of this", forever=True)
    if 300 <= status < 400:
        return Answer(problem=f"{host} answers {status}; redirects are not followed: give the final address")
    return Answer(problem=f"{host} answers {status}", wait_s=_asked_wait(response.headers.get("retry-after")))


def _asked_wait(text: str | None) -> float | None:
    """Seconds in a Retry-After header, which is a number or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
