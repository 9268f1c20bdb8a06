"""The way from every released schema to the present one, a step per number; a released step never changes."""

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
"""Number of a schema -> what leads to it from the one before."""


def upgrade(db: Connection, schema: int) -> None:
    """Brings tables of schema `found` to the present one, within the caller's transaction.

    The number is in the one table that programs of every schema read, so that older ones refuse what they
    cannot read; Alembic keeps no table of its own.
    """
    operations = Operations(MigrationContext.configure(db))
    for number in range(schema + 1, tables.SCHEMA_VERSION + 1):
        STEPS[number](operations, db)
    db.execute(update(tables.schema).values(number=tables.SCHEMA_VERSION))
    _require_whole(db)


def _require_whole(db: Connection) -> None:
    """Refuses rows that point nowhere: SQLite does not watch while tables are made anew."""
    dangling = db.exec_driver_sql("PRAGMA foreign_key_check").all() if db.dialect.name == "sqlite" else []
    if dangling:
        raise StoreUnusable(
            f"the registry cannot be upgraded: {len(dangling)} rows point at rows that are not there, the"
            f" first in table {dangling[0][0]!r}; it is left as it was, restore it from a backup"
        )
