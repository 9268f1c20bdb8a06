"""Upgrades every released schema to the current one, one step per number; released steps never change."""

from collections.abc import Callable

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, update

from artifacts.errors import StoreUnusable
from artifacts.registry import tables
from artifacts.registry.migrations import schema_2, schema_3

STEPS: dict[int, Callable[[Operations, Connection], None]] = {
    2: schema_2.upgrade,
    3: schema_3.upgrade,
}
"""Number of a schema -> upgrade from the schema before it."""


def upgrade(db: Connection, schema: int) -> None:
    """Upgrade the tables from `schema` to the current one, within the caller's transaction.

    The number is in a table that enginery of every schema reads, so that older versions refuse a newer
    schema; Alembic's own version table is not used.
    """
    operations = Operations(MigrationContext.configure(db))
    for number in range(schema + 1, tables.SCHEMA_VERSION + 1):
        # All in one transaction: a failure leaves the old schema, which the old version still reads.
        STEPS[number](operations, db)
    db.execute(update(tables.schema).values(number=tables.SCHEMA_VERSION))
    _require_whole(db)


def _require_whole(db: Connection) -> None:
    """Raise a StoreUnusable for dangling references: SQLite does not check them while tables are rebuilt."""
    dangling = db.exec_driver_sql("PRAGMA foreign_key_check").all() if db.dialect.name == "sqlite" else []
    if dangling:
        raise StoreUnusable(
            f"the registry cannot be upgraded: {len(dangling)} rows point at rows that are not there, the"
            f" first in table {dangling[0][0]!r}; it is left as it was, restore it from a backup"
        )
