"""Seals: a digest in every row that no command changes, which reveals changes by other programs.

A seal is not a signature: every program that can write the database can write seals. It reveals damage and
manual edits.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from artifacts import digest
from artifacts.registry import rows, tables

LATER = {"version": frozenset({"collected_at"})}
"""Columns that commands change later, so that the seal does not cover them."""

SEALED: tuple[Table, ...] = tuple(table for table in tables.METADATA.sorted_tables if "seal" in table.c)
"""Tables whose rows have seals. The seal of a version also covers its metrics, the seal of an event that of
the event before it: removing either is detected."""

MEASURED = ("metric", "position", "value", "low", "high")
"""Columns of each metric that the seal of a version covers."""


def seal(table: str, values: Mapping[str, Any], *context: Any) -> str:
    """Digest of a row, its table and `context`, which the seal also covers.

    A row has the same seal before it is written and after it is read from SQLite or PostgreSQL. TypeError or
    ValueError for a value that JSON cannot represent.
    """
    return digest.of_json([table, dict(values), *context])


def sealed(table: Table, row: Mapping[str, Any], *context: Any) -> dict[str, Any]:
    """The complete row to write, with its seal; RowRefused where readers would reject it as odd."""
    return {**rows.check_row(table, row), "seal": seal(table.name, covered(table, row), *context)}


def covered(table: Table, row: tables.Values) -> dict[str, Any]:
    """The columns of a row that its seal covers."""
    left_out = LATER.get(table.name, frozenset()) | {"seal"}
    return {column.name: row[column.name] for column in table.c if column.name not in left_out}


def of_metrics(measured: Iterable[tables.Values]) -> list[list[Any]]:
    """Metrics of a version as its seal covers them: sorted, with numbers as databases return them."""
    metric_rows = [[_number(row[column]) for column in MEASURED] for row in measured]
    return sorted(metric_rows, key=lambda values: str(values[0]))


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    # A column of floats returns 1 as 1.0, and JSON would write the two differently.
    return float(value) + 0.0  # SQLite keeps -0.0 as 0


def last_event(db: Connection) -> str | None:
    """Seal of the newest event; None where there is none yet."""
    newest: Row[Any] | None = db.execute(
        select(tables.log.c.seal).order_by(tables.log.c.seq.desc()).limit(1)
    ).first()
    return None if newest is None else newest.seal
