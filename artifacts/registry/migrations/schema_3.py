"""From schema 2 to 3: a seal in every row that no command changes."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy import Connection, select, update

from artifacts.registry.seals import of_metrics, seal

JSON = {"recipe", "lineage", "checks", "source", "rules", "detail"}

COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "store": (("id",), ("url", "bound_at")),
    "version": (
        ("name", "number"),
        (
            *("engine_key", "manifest_digest", "model", "origin", "identity", "verdict", "recipe", "lineage"),
            *("checks", "source", "facts_id", "published_at", "published_by"),
        ),
    ),
    "alias": (("name", "alias"), ("number", "moved_at", "moved_by")),
    "policy": (("alias",), ("rules", "set_at", "set_by")),
    "waiver": (
        ("id",),
        ("name", "number", "alias", "rule", "reason", "granted_at", "granted_by", "until"),
    ),
    "signature": (("manifest_digest", "key_id"), ("bundle", "signed_at", "signed_by")),
    "attestation": (("engine_key", "key_id"), ("bundle", "signed_at", "signed_by")),
    "event": (("seq",), ("at", "name", "kind", "by", "detail")),
}
"""Table -> its key and the other columns that the seal covers. Fixed, unlike `artifacts.registry.tables`,
which later schemas change."""

METRIC = sa.table("metric", *map(sa.column, ("name", "number", "metric", "position", "value", "low", "high")))

OPEN = {
    "sqlite": ("DROP TRIGGER event_no_update",),
    "postgresql": ("ALTER TABLE event DISABLE TRIGGER event_only_grows",),
}
CLOSE = {
    "sqlite": (
        "CREATE TRIGGER event_no_update BEFORE UPDATE ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END",
    ),
    "postgresql": ("ALTER TABLE event ENABLE TRIGGER event_only_grows",),
}
"""Statements that allow changes of events for this upgrade, and that forbid them again."""


def upgrade(op: Operations, db: Connection) -> None:
    """Add the column and seal the existing rows; an unreadable row gets no seal, which `verify` reports."""
    for name in COLUMNS:
        op.add_column(name, sa.Column("seal", sa.String(64)))
    # Sealing updates the events, which their trigger forbids; it is off only for this upgrade.
    for statement in OPEN[db.dialect.name]:
        op.execute(statement)
    for name in COLUMNS:
        _seal_all(db, name)
    for statement in CLOSE[db.dialect.name]:
        op.execute(statement)


def _seal_all(db: Connection, name: str) -> None:
    key, covered = COLUMNS[name]
    columns = [sa.column(column, sa.JSON if column in JSON else None) for column in (*key, *covered)]
    table = sa.table(name, *columns, sa.column("seal"))
    last_seal: str | None = None
    order = [table.c[column] for column in key]
    for row in db.execute(select(*columns).order_by(*order)).mappings().all():
        # As `seals` defines it: an event's seal covers the seal before it, a version's its metrics.
        context = {"event": (last_seal,), "version": (_metrics(db, dict(row)),) if name == "version" else ()}
        try:
            last_seal = seal(name, dict(row), *context.get(name, ()))
        except (TypeError, ValueError):
            last_seal = None
        this_row = sa.and_(*(table.c[column] == row[column] for column in key))
        db.execute(update(table).where(this_row).values(seal=last_seal))


def _metrics(db: Connection, version: Mapping[str, Any]) -> list[list[Any]]:
    this_version = (METRIC.c.name == version["name"]) & (METRIC.c.number == version["number"])
    return of_metrics(row._asdict() for row in db.execute(select(METRIC).where(this_version)))
