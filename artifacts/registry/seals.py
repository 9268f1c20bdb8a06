"""Seals of rows: a digest in every row that no command changes, so that another program's change shows.

A seal is no signature: whoever can write the database can write seals too. It finds what was damaged, or
edited by hand.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from artifacts import digest
from artifacts.registry import rows, tables

LATER = {"version": frozenset({"collected_at"})}
"""Columns that commands change after the row was written; they are outside its seal."""

SEALED: tuple[Table, ...] = tuple(table for table in tables.METADATA.sorted_tables if "seal" in table.c)
"""Tables whose rows have seals. The seal of a version covers its metrics too, that of an event the seal of
the one before it: neither can go without a trace."""

MEASURED = ("metric", "position", "value", "low", "high")
"""What a version's seal covers of each of its metrics."""


def seal(table: str, values: Mapping[str, Any], *context: Any) -> str:
    """Digest of a row with its table and key, and of what its seal covers `context` it.

    The same for a row that is about to be written and for one read back, from SQLite and PostgreSQL alike. A
    value that JSON cannot have is a TypeError or a ValueError.
    """
    return digest.of_json([table, dict(values), *context])


def sealed(table: Table, row: Mapping[str, Any], *context: Any) -> dict[str, Any]:
    """The row, in full and about to be written, with its seal; one that readers call odd is a RowRefused."""
    return {**rows.check_row(table, row), "seal": seal(table.name, covered(table, row), *context)}


def covered(table: Table, row: tables.Values) -> dict[str, Any]:
    """As much of a row as its seal covers."""
    left_out = LATER.get(table.name, frozenset()) | {"seal"}
    return {column.name: row[column.name] for column in table.c if column.name not in left_out}


def of_metrics(measured: Iterable[tables.Values]) -> list[list[Any]]:
    """Metrics of a version as its seal covers them: in one order, numbers as databases give them back."""
    metric_rows = [[_number(row[column]) for column in MEASURED] for row in measured]
    return sorted(metric_rows, key=lambda values: str(values[0]))


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return float(value) + 0.0  # SQLite keeps -0.0 as 0


def last_event(db: Connection) -> str | None:
    """Seal of the newest event; None where there is none yet."""
    newest: Row[Any] | None = db.execute(
        select(tables.log.c.seal).order_by(tables.log.c.seq.desc()).limit(1)
    ).first()
    return None if newest is None else newest.seal
