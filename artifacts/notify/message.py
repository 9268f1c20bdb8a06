"""The message about an event, and the outcome of delivering it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from artifacts.notify.outbox import Due
from artifacts.version import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one attempt."""

    problem: str = ""
    """Why it failed; empty where the event was delivered."""
    wait_s: float | None = None
    """Delay before the next attempt that the receiver asks for, seconds."""
    forever: bool = False
    """Whether the receiver wants no further attempts for this event."""


Deliver = Callable[[Due], Outcome]
"""Delivers one event to one subscriber; expected failures are outcomes, not exceptions."""


def message_id(event: Event) -> str:
    """Id of an event, the same for every attempt, so that receivers can drop duplicates."""
    # With the time, since a registry restored from a backup gives numbers a second time.
    text = f"{event.at.isoformat()} {event.name} {event.seq}"
    return f"evt_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def body(event: Event) -> str:
    """The event as ASCII JSON text in the form that Standard Webhooks recommends."""
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
