"""The log of a registry, which only grows: who did what and when."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from artifacts.actor import whoami
from artifacts.registry import tables
from artifacts.version import Event

MOVES = ("alias_moved", "rolled_back")
"""Kinds of events that move an alias; their detail has `alias`, `was` and `now`."""

ORDER = 0x6C6F67
"""Number of the PostgreSQL lock under which events are added; any, as long as it stays the same."""


def moment(db: Connection) -> datetime:
    """Now, by the server's clock where there is one: hosts that promote need not agree on the time."""
    if db.dialect.name == "postgresql":
        found: datetime = db.execute(select(func.clock_timestamp())).scalar_one()
        return found.astimezone(UTC)
    return datetime.now(UTC)


def newest_moment(db: Connection) -> datetime | None:
    """The latest moment that the log has; None of an empty one. A clock that says less was set back."""
    found = db.scalar(select(func.max(tables.log.c.at)))
    return None if found is None else datetime.fromisoformat(found)


def known_moment(db: Connection) -> datetime:
    """Now, but never before what has happened: what was over stays over where a clock is set back."""
    now, newest = moment(db), newest_moment(db)
    return now if newest is None else max(now, newest)


def record(db: Connection, name: str, kind: str, detail: dict[str, Any]) -> None:
    """Adds an event; it is there if the caller's transaction succeeds.

    Whoever adds one waits for who added the last to end: events appear in the order of their numbers, and
    a reader that has seen one will see none before it.
    """
    if db.dialect.name == "postgresql":  # SQLite's writers take turns anyway
        db.execute(select(func.pg_advisory_xact_lock(ORDER)))
    at = moment(db).isoformat()
    db.execute(insert(tables.log).values(at=at, name=name, kind=kind, by=whoami(), detail=detail))


def newest_first(
    name: str | None = None, *, kinds: Sequence[str] = (), alias: str | None = None
) -> Select[Any]:
    """The query for events of a name (None: all), of some kinds, of one alias."""
    table = tables.log
    query = select(table).order_by(table.c.seq.desc())
    if name is not None:
        query = query.where(table.c.name == name)
    if kinds:
        query = query.where(table.c.kind.in_(kinds))
    if alias is not None:
        query = query.where(table.c.detail["alias"].as_string() == alias)
    return query


def event(row: Row[Any]) -> Event:
    """A row of the log as a value."""
    return Event(
        seq=row.seq,
        at=datetime.fromisoformat(row.at),
        name=row.name,
        kind=row.kind,
        by=row.by,
        detail=row.detail,
    )
