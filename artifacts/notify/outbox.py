"""The outbox: subscribers, and the state of each delivery of an event to a subscriber.

The event in the log is the message, written by the same transaction as the change that it records. So an
event is delivered if and only if its change was committed, and a delivery can neither delay nor fail a
publication.
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
from artifacts.notify.subscription import Subscription, Way, check_subscription
from artifacts.registry import log, rows, tables
from artifacts.registry.database import Database
from artifacts.version import Event

WAITS_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Delays between attempts, as Standard Webhooks recommends: about three days in all; then we give up."""

JITTER = 0.2
"""Largest random addition to a delay, relative to it, so that failed deliveries do not retry together."""

CLAIM_S = 120
"""Longest attempt; after it the process counts as dead, and another one may try."""

EVENTS_PER_QUERY = 64
"""Events read per query: a server sends all rows of a result, and usually the first one is due."""

LONGEST_WAIT_S = 86_400
"""Longest delay that a receiver may ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An event that this process has claimed for delivery to one subscriber."""

    subscription: Subscription
    event: Event
    attempt: int
    """Counts from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The state of the delivery of an event to a subscriber."""

    subscription: int
    seq: int
    attempts: int
    next_at: datetime | None
    """Time of the next attempt, UTC; None once the event is delivered or given up."""
    done_at: datetime | None
    """Time of delivery, UTC."""
    problem: str | None
    """Why the last attempt failed."""

    @property
    def state(self) -> str:
        """`told`, `waits` or `given up`: words that `notify --list --json` prints."""
        return "told" if self.done_at else "waits" if self.next_at else "given up"


class Outbox:
    """Subscribers of one registry and their pending deliveries."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def subscribe(
        self, way: Way, target: str, *, secret: str | None = None, kinds: Sequence[str] = (), names: str = "*"
    ) -> int:
        """Add a subscriber for events from now on; return its number."""
        check_subscription(way, target, secret, kinds)
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
            result = db.execute(
                insert(tables.subscription).values(**rows.check_row(tables.subscription, row))
            )
            (number,) = result.inserted_primary_key or (0,)
        return int(number)

    def unsubscribe(self, number: int) -> None:
        """Remove a subscriber and its pending deliveries; NotFound for an unknown number."""
        with self._db.writing() as db:
            # Deliveries first: they refer to the subscriber.
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
        """Every delivery that was attempted, newest event first."""
        if not self._db.exists():
            return []
        table = tables.delivery
        with self._db.reading() as db:
            delivery_rows = rows.select_rows(
                db, table, select(table).order_by(table.c.seq.desc(), table.c.subscription)
            )
        return [_delivery(row) for row in delivery_rows]

    def claim(self, now: datetime, without: Collection[int] = ()) -> Due | None:
        """Claim the oldest event that is due for delivery; None where nothing is due.

        Subscribers in `without` are skipped. For `CLAIM_S`, no other process can claim this event or a later
        one for the same subscriber, so that events arrive in order. If this process dies, another one claims
        the event again: a subscriber may receive it twice, never not at all.
        """
        while self._db.exists():
            with self._db.reading() as db:
                due = _next_due(db, now, without)
            if due is None:
                return None
            if self._take(due, now):
                return due
        return None

    def delivered(self, due: Due, now: datetime) -> None:
        """Record that the event was delivered."""
        self._settle(due, done_at=_text(now), next_at=None, problem=None)

    def failed(
        self, due: Due, now: datetime, problem: str, *, wait_s: float | None = None, forever: bool = False
    ) -> datetime | None:
        """Record a failed attempt; return the time of the next one, None where the event is given up.

        `wait_s` is the delay that the receiver asks for; with `forever`, the event is given up at once.
        """
        next_at = None
        if not forever and due.attempt <= len(WAITS_S):
            # A receiver may ask for a longer delay, never for a shorter one.
            wait = WAITS_S[due.attempt - 1] * random.uniform(1, 1 + JITTER)
            next_at = now + timedelta(seconds=max(wait, min(wait_s or 0, LONGEST_WAIT_S)))
        self._settle(due, done_at=None, next_at=_text(next_at) if next_at else None, problem=problem[:1000])
        return next_at

    def retry(self, number: int, now: datetime) -> int:
        """Make a subscriber's given-up events due again; return their number.

        NotFound for an unknown subscriber.
        """
        if number not in [subscription.id for subscription in self.subscriptions()]:
            raise self._unknown(number)
        table = tables.delivery
        given_up = (table.c.subscription == number) & table.c.done_at.is_(None) & table.c.next_at.is_(None)
        with self._db.writing() as db:
            return db.execute(update(table).where(given_up).values(next_at=_text(now), attempts=0)).rowcount

    def _take(self, due: Due, now: datetime) -> bool:
        """Claim the event in one transaction; False where another process claimed it first.

        A claim is an attempt whose next attempt is due after `CLAIM_S`: if this process dies, the claim ends
        by itself.
        """
        table, until = tables.delivery, _text(now + timedelta(seconds=CLAIM_S))
        this_delivery = (table.c.subscription == due.subscription.id) & (table.c.seq == due.event.seq)
        try:
            with self._db.writing() as db:
                # Checked again inside the write transaction: another process may have claimed since the read.
                if db.scalar(_in_flight(due.subscription, now)):
                    return False
                # The row of a delivery exists from its first attempt on; two processes that insert it collide
                # at its primary key.
                if due.attempt == 1 and db.scalar(select(table.c.seq).where(this_delivery)) is None:
                    row = {"subscription": due.subscription.id, "seq": due.event.seq, "attempts": 1}
                    db.execute(insert(table).values(**rows.check_row(table, {**row, "next_at": until})))
                    return True
                # The number of attempts is compared and raised in one statement, so one of two processes
                # changes the row.
                open_ = this_delivery & (table.c.attempts == due.attempt - 1) & _is_due(now)
                claim = {"attempts": due.attempt, "next_at": until, "problem": None}
                result = db.execute(update(table).where(open_).values(**claim))
                return result.rowcount == 1
        except IntegrityError:  # another process took it first, or the subscriber was removed
            return False

    def _settle(self, due: Due, **values: Any) -> None:
        table = tables.delivery
        this_delivery = (table.c.subscription == due.subscription.id) & (table.c.seq == due.event.seq)
        with self._db.writing() as db:
            # If our attempt outlived its claim, another process made a later one: its outcome stands.
            db.execute(
                update(table).where(this_delivery & (table.c.attempts == due.attempt)).values(**values)
            )


def _next_due(db: Connection, now: datetime, without: Collection[int]) -> Due | None:
    """The first event that matches a subscription and is due: not attempted yet, or due for a retry."""
    for subscription in _subscriptions(db):
        if subscription.id in without or db.scalar(_in_flight(subscription, now)):
            continue
        after = subscription.after_seq
        while waiting := db.execute(_waiting(subscription, after, now)).all():
            for row in rows.sound_rows(tables.log, waiting):
                event, attempts = log.event(row), row.attempts
                if subscription.wants(event):
                    return Due(
                        subscription=subscription,
                        event=event,
                        attempt=(attempts if isinstance(attempts, int) else 0) + 1,
                    )
            # None of these events is for the subscriber, e.g. its glob is narrower than LIKE can say; go on
            # behind them.
            after = waiting[-1].seq
    return None


def _in_flight(subscription: Subscription, now: datetime) -> Select[tuple[int]]:
    """Query for an event that a process is delivering now: claimed, and neither delivered nor failed."""
    table = tables.delivery
    claimed = table.c.done_at.is_(None) & table.c.problem.is_(None) & ~_is_due(now)
    return select(table.c.seq).where(table.c.subscription == subscription.id, claimed).limit(1)


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Whether the next attempt is due.

    A time further ahead than any delay was written before the clock was set back; it is due too.
    """
    next_at = tables.delivery.c.next_at
    return or_(next_at <= _text(now), next_at > _text(now + timedelta(seconds=2 * LONGEST_WAIT_S)))


def _waiting(subscription: Subscription, after: int, now: datetime) -> Select[Any]:
    """Query for the first few events after `after` that may match the subscription and are due."""
    events, delivery = tables.log, tables.delivery
    same_event = and_(delivery.c.seq == events.c.seq, delivery.c.subscription == subscription.id)
    query = (
        select(events, delivery.c.attempts)
        .select_from(events.outerjoin(delivery, same_event))
        .where(events.c.seq > after, events.c.name.like(_like(subscription.names), escape="!"))
        .where(or_(delivery.c.seq.is_(None), _is_due(now)))
        .order_by(events.c.seq)
        .limit(EVENTS_PER_QUERY)
    )
    return query.where(events.c.kind.in_(subscription.kinds)) if subscription.kinds else query


def _like(names: str) -> str:
    """A LIKE pattern that matches every name the glob matches; `Subscription.wants` decides exactly."""
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
        for row in rows.select_rows(db, table, select(table).order_by(table.c.id))
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
    """A moment as text whose order is the order of time: UTC, always with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
