"""What a subscriber is told of an event, and what it answers."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from artifacts.notify.outbox import Due
from artifacts.version import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one attempt."""

    problem: str = ""
    """Why it failed; empty where the subscriber has the event."""
    wait_s: float | None = None
    """How long the receiver asks to be left alone."""
    forever: bool = False
    """The receiver wants to hear no more of this."""


Tell = Callable[[Due], Answer]
"""One attempt to tell one subscriber of one event; expected failures are answers."""


def message_id(event: Event) -> str:
    """The same for every attempt, so that receivers can tell a repetition from news."""
    text = f"{event.at.isoformat()} {event.name} {event.seq}"
    return f"evt_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def body(event: Event) -> str:
    """The event as JSON text, in the form that Standard Webhooks recommend; ASCII, whatever names hold."""
    number = event.detail.get("number", event.detail.get("now"))
    return json.dumps(
        {
            "type": f"enginery.{event.kind}",
            "timestamp": event.at.isoformat(),
            "data": {
                "seq": event.seq,
                "name": event.name,
                "version": f"{event.name}:{number}" if isinstance(number, int) else None,
                "by": event.by,
                "detail": event.detail,
            },
        }
    )
