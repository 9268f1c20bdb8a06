"""The append-only event log of a registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from artifacts.actor import whoami
from artifacts.registry import rows, seals, tables
from artifacts.version import Event

MOVES = ("alias_moved", "rolled_back")
"""Kinds of events that move an alias; their details have `alias`, `was` and `now`."""

ORDER = 0x6C6F67
"""Key of the PostgreSQL advisory lock for adding events; arbitrary, but it must never change."""


def moment(db: Connection) -> datetime:
    """Now, by the server's clock where there is one, since the clocks of hosts may differ."""
    if db.dialect.name == "postgresql":
        # Not `now()`, which is the start of the transaction: a wait for a lock may lie in between.
        now: datetime = db.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Latest:
    """The event with the latest time in a log."""

    at: datetime
    description: str
    """Its number, name and author, for messages."""


def latest(db: Connection) -> Latest | None:
    """The event with the latest time; None for an empty log. A clock before it was set back."""
    table, names = tables.log, ("seq", "name", "at", "by")
    # By time, not by number: after a clock was set back, the last event is not the latest.
    query = select(*(table.c[name] for name in names)).order_by(table.c.at.desc())
    row = next(rows.sound_tuples(table, names, db.execute(query)), None)
    if row is None:
        return None
    name_part = f"of {rows.printable(row.name)} " if row.name else ""  # policies are of no name
    description = f"event {row.seq}, {name_part}by {rows.printable(row.by)},"
    return Latest(datetime.fromisoformat(row.at), description)


def known_moment(db: Connection) -> datetime:
    """Now, but never before the latest event: a waiver that has ended stays ended if a clock is set back."""
    now, newest = moment(db), latest(db)
    return now if newest is None else max(now, newest.at)


def record(db: Connection, name: str, kind: str, detail: dict[str, Any]) -> None:
    """Add an event as part of the caller's transaction.

    Transactions that add events run one after the other, so that events become visible in the order of their
    numbers: a reader that has seen one never finds an earlier one later.
    """
    if db.dialect.name == "postgresql":  # SQLite's write lock already serializes writers
        db.execute(select(func.pg_advisory_xact_lock(ORDER)))
    row = {
        "seq": _next(db),
        "at": moment(db).isoformat(),
        "name": name,
        "kind": kind,
        "by": whoami(),
        "detail": detail,
    }
    db.execute(insert(tables.log).values(**seals.sealed(tables.log, row, seals.last_event(db))))


def _next(db: Connection) -> int:
    """Number of the next event; needed before the insertion, because the seal covers it."""
    if db.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(tables.log.name, tables.log.c.seq.name)
        number: int = db.execute(select(func.nextval(sequence))).scalar_one()
        return number
    last: int | None = db.scalar(select(func.max(tables.log.c.seq)))
    return (last or 0) + 1


def newest_first(name: str | None = None, *, kinds: Sequence[str] = ()) -> Select[Any]:
    """Query for events of a name (None: of all names) and of some kinds (empty: all).

    It does not filter by detail: one row with malformed JSON would fail the whole query.
    """
    table = tables.log
    query = select(table).order_by(table.c.seq.desc())
    if name is not None:
        query = query.where(table.c.name == name)
    if kinds:
        query = query.where(table.c.kind.in_(kinds))
    return query


def event(row: Row[Any]) -> Event:
    """The event in a row of the log; OddRow where the row is odd."""
    rows.require(tables.log, row)
    return Event(
        seq=row.seq,
        at=datetime.fromisoformat(row.at),
        name=row.name,
        kind=row.kind,
        by=row.by,
        detail=row.detail,
    )
