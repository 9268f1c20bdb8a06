"""The outbox: which events wait for which subscribers, who tries next, and what became of it.

The event itself is the message, written by the transaction that it is about. So nothing is told that did not
happen, and nothing that happened is forgotten; telling costs a publication nothing, and cannot fail it.
"""

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from artifacts.actor import whoami
from artifacts.errors import NotFound
from artifacts.notify.subscription import Subscription, Way, checked
from artifacts.registry import log, rows, tables
from artifacts.registry.database import Database
from artifacts.version import Event

WAITS_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Between attempts, as Standard Webhooks recommend: about three days in all; then nobody tries any more."""

JITTER = 0.2
"""Part of a wait that is random, so that the failed do not all come back at once."""

CLAIM_S = 120
"""How long a try may take; then its process counts as dead, and another one tries."""

LOOKED_AT = 64
"""Events that are read at once: a server sends all rows of an answer, and mostly the first is taken."""

LONGEST_WAIT_S = 86_400
"""A receiver that asks for more is asked again after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An event that one process is about to tell one subscriber."""

    subscription: Subscription
    event: Event
    attempt: int
    """Counts from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of telling a subscriber of an event."""

    subscription: int
    seq: int
    attempts: int
    next_at: datetime | None
    """When it is tried again, UTC; None once it is told, or given up."""
    done_at: datetime | None
    """When it was told, UTC."""
    problem: str | None
    """Why the last attempt failed."""

    @property
    def state(self) -> str:
        """`told`, `waits` or `given up`."""
        return "told" if self.done_at else "waits" if self.next_at else "given up"


class Outbox:
    """Subscribers of one registry and what they are still to be told."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def subscribe(
        self, way: Way, target: str, *, secret: str | None = None, kinds: Sequence[str] = (), names: str = "*"
    ) -> int:
        """Add a subscriber, who is told of what happens from now on; return its number."""
        checked(way, target, secret, kinds)
        with self._db.writing() as db:
            row = {
                "way": way,
                "target": target,
                "secret": secret,
                "kinds": list(kinds),
                "names": names,
                "after_seq": db.scalar(select(func.coalesce(func.max(tables.log.c.seq), 0))),
                "added_at": _text(datetime.now(UTC)),
                "added_by": whoami(),
            }
            made = db.execute(insert(tables.subscription).values(**rows.checked(tables.subscription, row)))
            (number,) = made.inserted_primary_key or (0,)
        return int(number)

    def unsubscribe(self, number: int) -> None:
        """Remove a subscriber and what waits for it; an unknown one is a NotFound."""
        with self._db.writing() as db:
            db.execute(delete(tables.delivery).where(tables.delivery.c.subscription == number))
            if (
                db.execute(delete(tables.subscription).where(tables.subscription.c.id == number)).rowcount
                == 0
            ):
                raise self._unknown(number)

    def _unknown(self, number: int) -> NotFound:
        return NotFound(
            f"no subscriber {number} in {self._db.url}; list them with `enginery registry subscribe`"
        )

    def subscriptions(self) -> list[Subscription]:
        """Every subscriber, oldest first."""
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return _subscriptions(db)

    def deliveries(self) -> list[Delivery]:
        """What was tried, newest event first."""
        if not self._db.exists():
            return []
        table = tables.delivery
        with self._db.reading() as db:
            found = rows.all_of(db, table, select(table).order_by(table.c.seq.desc(), table.c.subscription))
        return [_delivery(row) for row in found]

    def claim(self, now: datetime, without: Collection[int] = ()) -> Due | None:
        """Take the oldest event that somebody is to be told of now; None where nothing is due.

        Subscribers named in `without` are left for later.

        No other process takes it for `CLAIM_S`, nor a later event for the same subscriber: two processes
        would deliver out of order. A process that dies meanwhile may not have delivered: another one does.
        """
        while self._db.exists():
            with self._db.reading() as db:
                due = _next_due(db, now, without)
            if due is None:
                return None
            if self._take(due, now):
                return due
        return None

    def told(self, due: Due, now: datetime) -> None:
        """The subscriber has it."""
        self._settle(due, done_at=_text(now), next_at=None, problem=None)

    def failed(
        self, due: Due, now: datetime, problem: str, *, wait_s: float | None = None, forever: bool = False
    ) -> datetime | None:
        """It was refused or lost; return when it is tried again, None where nobody tries any more.

        `wait_s` is what the receiver asks for; `forever` that it wants to hear no more of it.
        """
        again = None
        if not forever and due.attempt <= len(WAITS_S):
            own = WAITS_S[due.attempt - 1] * random.uniform(1, 1 + JITTER)
            again = now + timedelta(seconds=max(own, min(wait_s or 0, LONGEST_WAIT_S)))
        self._settle(due, done_at=None, next_at=_text(again) if again else None, problem=problem[:1000])
        return again

    def retry(self, number: int, now: datetime) -> int:
        """Try again what was given up for a subscriber; return how many events that are.

        An unknown subscriber is a NotFound.
        """
        if number not in [one.id for one in self.subscriptions()]:
            raise self._unknown(number)
        table = tables.delivery
        given_up = (table.c.subscription == number) & table.c.done_at.is_(None) & table.c.next_at.is_(None)
        with self._db.writing() as db:
            return db.execute(update(table).where(given_up).values(next_at=_text(now), attempts=0)).rowcount

    def _take(self, due: Due, now: datetime) -> bool:
        """Whether this process is the one that tries; its claim is an attempt that ends at `CLAIM_S`."""
        table, until = tables.delivery, _text(now + timedelta(seconds=CLAIM_S))
        here = (table.c.subscription == due.subscription.id) & (table.c.seq == due.event.seq)
        try:
            with self._db.writing() as db:
                # again here: another process may have claimed since the events were read
                if db.scalar(_in_flight(due.subscription, now)):
                    return False
                if due.attempt == 1 and db.scalar(select(table.c.seq).where(here)) is None:
                    row = {"subscription": due.subscription.id, "seq": due.event.seq, "attempts": 1}
                    db.execute(insert(table).values(**rows.checked(table, {**row, "next_at": until})))
                    return True
                open_ = here & (table.c.attempts == due.attempt - 1) & _is_due(now)
                claim = {"attempts": due.attempt, "next_at": until, "problem": None}
                taken = db.execute(update(table).where(open_).values(**claim))
                return taken.rowcount == 1
        except IntegrityError:  # another process took it first, or the subscriber was removed
            return False

    def _settle(self, due: Due, **values: Any) -> None:
        table = tables.delivery
        here = (table.c.subscription == due.subscription.id) & (table.c.seq == due.event.seq)
        with self._db.writing() as db:
            # a later attempt by another process, after ours took too long, says what is so
            db.execute(update(table).where(here & (table.c.attempts == due.attempt)).values(**values))


def _next_due(db: Connection, now: datetime, without: Collection[int]) -> Due | None:
    """The first event that a subscriber wants, and has not been told or is to be told again by now."""
    for subscription in _subscriptions(db):
        if subscription.id in without or db.scalar(_in_flight(subscription, now)):
            continue
        after = subscription.after_seq
        while waiting := db.execute(_waiting(subscription, after, now)).all():
            for row in rows.sound(tables.log, waiting):
                event, tried = log.event(row), row.attempts
                if subscription.wants(event):
                    return Due(
                        subscription=subscription,
                        event=event,
                        attempt=(tried if isinstance(tried, int) else 0) + 1,
                    )
            after = waiting[-1].seq
    return None


def _in_flight(subscription: Subscription, now: datetime) -> Select[tuple[int]]:
    """The query for an event that another process is delivering: claimed, and neither done nor failed."""
    table = tables.delivery
    claimed = table.c.done_at.is_(None) & table.c.problem.is_(None) & ~_is_due(now)
    return select(table.c.seq).where(table.c.subscription == subscription.id, claimed).limit(1)


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Whether the next attempt has come, or is further ahead than any wait: then the clock was set back."""
    next_at = tables.delivery.c.next_at
    return or_(next_at <= _text(now), next_at > _text(now + timedelta(seconds=2 * LONGEST_WAIT_S)))


def _waiting(subscription: Subscription, after: int, now: datetime) -> Select[Any]:
    """The query for the first few events that a subscriber may want, and is to be told of by now."""
    events, delivery = tables.log, tables.delivery
    told = and_(delivery.c.seq == events.c.seq, delivery.c.subscription == subscription.id)
    query = (
        select(events, delivery.c.attempts)
        .select_from(events.outerjoin(delivery, told))
        .where(events.c.seq > after, events.c.name.like(_like(subscription.names), escape="!"))
        .where(or_(delivery.c.seq.is_(None), _is_due(now)))
        .order_by(events.c.seq)
        .limit(LOOKED_AT)
    )
    return query.where(events.c.kind.in_(subscription.kinds)) if subscription.kinds else query


def _like(names: str) -> str:
    """A pattern of SQL that takes all that the glob takes, so that few other names are looked at here."""
    text = re.sub(r"[!%]", r"!\g<0>", names).replace("*", "%").replace("?", "_")
    return re.sub(r"\[.*", "%", text, flags=re.DOTALL)


def _subscriptions(db: Connection) -> list[Subscription]:
    table = tables.subscription
    return [
        Subscription(
            **{
                **row._asdict(),
                "kinds": tuple(row.kinds),
                "added_at": datetime.fromisoformat(row.added_at),
            }
        )
        for row in rows.all_of(db, table, select(table).order_by(table.c.id))
    ]


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        subscription=row.subscription,
        seq=row.seq,
        attempts=row.attempts,
        next_at=rows.moment(row.next_at),
        done_at=rows.moment(row.done_at),
        problem=row.problem,
    )


def _text(moment: datetime) -> str:
    """Texts of moments that compare as the moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
