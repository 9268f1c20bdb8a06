"""Invalid rows of the registry, left out of an answer: named on pages and in a header."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifacts.registry import rows

HEADER = "enginery-odd-rows"

SHOWN = 10
"""Rows that a header names, and a page."""


def with_odd_rows(app: ASGIApp) -> ASGIApp:
    """Answers with a header that names the rows an answer leaves out; none where it leaves out none."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        with rows.collecting() as problems:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start" and problems:
                    MutableHeaders(scope=message)[HEADER] = _line(list(problems))
                await send(message)

            await app(scope, receive, told)

    return answered


def _line(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    # headers are ASCII, and the rows may hold anything
    return ("; ".join(problems[:SHOWN]) + more).encode("ascii", "backslashreplace").decode()


def on_page() -> list[str]:
    """What a page says of the rows that it leaves out."""
    problems = rows.collected()
    more = [f"and {len(problems) - SHOWN} more: see `enginery verify --all`"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *more]
