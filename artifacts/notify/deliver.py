"""Empties the outbox: tells every subscriber what is due, and writes down what became of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from artifacts.notify.message import Tell
from artifacts.notify.outbox import Due, Outbox
from artifacts.notify.subscription import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt."""

    due: Due
    problem: str
    """Empty where the subscriber has the event."""
    again_at: datetime | None
    """When it is tried again, UTC."""


def deliver(outbox: Outbox, ways: Mapping[Way, Tell], clock: Callable[[], datetime]) -> list[Tried]:
    """One attempt for everything that is due; return them, in order.

    A subscriber that fails is left alone for the rest: it shall not hold up the others.
    """
    attempts: list[Tried] = []
    failing: set[int] = set()
    while (due := outbox.claim(clock(), failing)) is not None:
        answer, again_at = ways[due.subscription.way](due), None
        if answer.problem:
            failing.add(due.subscription.id)
            again_at = outbox.failed(
                due, clock(), answer.problem, wait_s=answer.wait_s, forever=answer.forever
            )
        else:
            outbox.told(due, clock())
        attempts.append(Tried(due=due, problem=answer.problem, again_at=again_at))
    return attempts
