"""Delivers the events that are due to their subscribers, and records the outcome of each attempt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from artifacts.notify.message import Deliver
from artifacts.notify.outbox import Due, Outbox
from artifacts.notify.subscription import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to deliver an event, and its outcome."""

    due: Due
    problem: str
    """Empty where the event was delivered."""
    again_at: datetime | None
    """Time of the next attempt, UTC; None where there is none."""


def deliver_due(outbox: Outbox, ways: Mapping[Way, Deliver], clock: Callable[[], datetime]) -> list[Attempt]:
    """Attempt every delivery that is due, once; return the attempts in order.

    After a failure the subscriber gets no further attempts in this call, so that it does not delay others.
    """
    attempts: list[Attempt] = []
    failing: set[int] = set()
    while (due := outbox.claim(clock(), failing)) is not None:
        answer, again_at = ways[due.subscription.way](due), None
        if answer.problem:
            # Its later events wait too: they must arrive in order.
            failing.add(due.subscription.id)
            again_at = outbox.failed(
                due, clock(), answer.problem, wait_s=answer.wait_s, forever=answer.forever
            )
        else:
            outbox.delivered(due, clock())
        attempts.append(Attempt(due=due, problem=answer.problem, again_at=again_at))
    return attempts
