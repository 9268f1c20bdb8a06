"""The log of a registry, which only grows: who did what and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from artifacts.actor import whoami
from artifacts.registry import rows, seals, tables
from artifacts.version import Event

MOVES = ("alias_moved", "rolled_back")
"""Kinds of events that move an alias; their detail has `alias`, `was` and `now`."""

ORDER = 0x6C6F67
"""Number of the PostgreSQL lock under which events are added; any, as long as it stays the same."""


def moment(db: Connection) -> datetime:
    """Now, by the server's clock where there is one: hosts that promote need not agree on the time."""
    if db.dialect.name == "postgresql":
        now: datetime = db.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Latest:
    """The event with the latest moment that a log has."""

    at: datetime
    said: str
    """Which it is and by whom."""


def latest(db: Connection) -> Latest | None:
    """The event with the latest moment; None of an empty log. A clock that says less was set back."""
    table, names = tables.log, ("seq", "name", "at", "by")
    query = select(*(table.c[name] for name in names)).order_by(table.c.at.desc())
    row = next(rows.lines(table, names, db.execute(query)), None)
    if row is None:
        return None
    name_part = f"of {rows.shown(row.name)} " if row.name else ""  # policies are of no name
    description = f"event {row.seq}, {name_part}by {rows.shown(row.by)},"
    return Latest(datetime.fromisoformat(row.at), description)


def known_moment(db: Connection) -> datetime:
    """Now, but never before what has happened: what was over stays over where a clock is set back."""
    now, newest = moment(db), latest(db)
    return now if newest is None else max(now, newest.at)


def record(db: Connection, name: str, kind: str, detail: dict[str, Any]) -> None:
    """Adds an event; it is there if the caller's transaction succeeds.

    Whoever adds one waits for who added the last to end: events appear in the order of their numbers, and
    a reader that has seen one will see none before it.
    """
    if db.dialect.name == "postgresql":  # SQLite's writers take turns anyway
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
    """Number of the event that is added next: it is known before, because the seal covers it."""
    if db.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(tables.log.name, tables.log.c.seq.name)
        number: int = db.execute(select(func.nextval(sequence))).scalar_one()
        return number
    last: int | None = db.scalar(select(func.max(tables.log.c.seq)))
    return (last or 0) + 1


def newest_first(name: str | None = None, *, kinds: Sequence[str] = ()) -> Select[Any]:
    """The query for events of a name (None: all), of some kinds.

    It looks into no detail: one that is no JSON would end the query for all.
    """
    table = tables.log
    query = select(table).order_by(table.c.seq.desc())
    if name is not None:
        query = query.where(table.c.name == name)
    if kinds:
        query = query.where(table.c.kind.in_(kinds))
    return query


def event(row: Row[Any]) -> Event:
    """A row of the log as a value; an odd one is an OddRow."""
    rows.require(tables.log, row)
    return Event(
        seq=row.seq,
        at=datetime.fromisoformat(row.at),
        name=row.name,
        kind=row.kind,
        by=row.by,
        detail=row.detail,
    )
