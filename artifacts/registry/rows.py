"""Checks rows of the registry where they are read, and reports and skips odd rows.

Other programs can write a registry, and disks can damage it. Every reader converts rows by the functions
here, so that an odd row affects only itself and is reported by its name. A row is odd if enginery would not
write it.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, Table

from artifacts.errors import ArtifactCorrupt, RowRefused
from artifacts.registry import columns, shapes, tables
from artifacts.version import Facts

logger = logging.getLogger(__name__)

SHOWN = 80
"""Most characters of a value that messages show."""

REPEATED = frozenset({"name", "verdict", "origin", "model", "facts_id", "metric", "alias"})
"""Text columns whose values repeat in many rows."""

T = TypeVar("T")

# A context variable, so that two calls at once do not collect each other's messages.
_COLLECTED: ContextVar[dict[str, None] | None] = ContextVar("odd rows", default=None)


class OddRow(ArtifactCorrupt):
    """A row of the registry that enginery would not write: its name and its problem."""


@contextmanager
def collecting() -> Iterator[dict[str, None]]:
    """Collect the messages about odd rows during the block, each once, instead of logging them."""
    messages: dict[str, None] = {}
    token = _COLLECTED.set(messages)
    try:
        yield messages
    finally:
        _COLLECTED.reset(token)


def collect_into(messages: dict[str, None]) -> None:
    """From now on, collect messages in `messages` instead of logging them, in this context."""
    _COLLECTED.set(messages)


def collected() -> list[str]:
    """Messages collected so far in this context."""
    return list(_COLLECTED.get() or ())


def report_odd(problem: object) -> None:
    """Report that an odd row is left out: to the collector of this context, else to the log."""
    messages, message = _COLLECTED.get(), str(problem)
    if messages is None:
        logger.warning("%s; the row is left out, see `enginery verify --all`", message)
    else:
        # A dictionary keeps the order and drops repetitions.
        messages.setdefault(message)


def row_problem(table: Table, row: tables.Values) -> str | None:
    """The problem of a row, as far as its columns were read; None where there is none."""
    checks = columns.CHECKS[table.name]
    for name, value in row.items():
        problem = checks[name](value) if name in checks else None
        if problem is not None:
            return f"{name} {problem}"
    if table is tables.log and "detail" in row:
        problem = shapes.DETAILS.get(row["kind"], columns.anything)(row["detail"])
        return problem and f"detail {problem}"
    return None


def require(table: Table, row: Row[Any] | tables.Values) -> None:
    """Raise OddRow for an odd row."""
    values: tables.Values = row._asdict() if isinstance(row, Row) else row
    problem = row_problem(table, values)
    if problem is not None:
        raise OddRow(f"{row_name(table, values)}: {problem}")


def check_row(table: Table, row: tables.Values) -> dict[str, Any]:
    """The row to write; RowRefused where readers would reject it as odd."""
    problem = row_problem(table, row)
    if problem is not None:
        # Refused now: every later reader would leave the row out.
        raise RowRefused(f"{row_name(table, row)} cannot be written: {problem}; give another value")
    return dict(row)


def require_version(row: Row[Any]) -> None:
    """Raise OddRow for a version, read with its facts, whose row or facts are odd."""
    require(tables.version, row)
    problem = columns.CHECKS["facts"]["facts"](row.facts)
    if problem is not None:
        raise OddRow(f"{missing_facts_message(row._asdict())}: facts {problem}")


def read_values(rows: Iterable[Row[Any]], value: Callable[[Row[Any]], T]) -> list[T]:
    """Values of rows; odd rows are reported and left out."""
    values = []
    for row in rows:
        try:
            values.append(value(row))
        except OddRow as exc:
            report_odd(exc)
    return values


def sound_rows(table: Table, rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    """The valid rows of a table; odd rows are reported and left out."""

    def same(row: Row[Any]) -> Row[Any]:
        require(table, row)
        return row

    return read_values(rows, same)


def select_rows(db: Connection, table: Table, query: Select[Any]) -> list[Row[Any]]:
    """The valid rows of a query on one table; odd rows are reported and left out."""
    return sound_rows(table, db.execute(query))


def sound_tuples(
    table: Table, names: Sequence[str], rows: Iterable[Any], *, unused: Collection[str] = ()
) -> Iterator[Any]:
    """The valid rows among rows of these columns: `sound_rows` for tens of thousands of rows.

    Columns in `unused` are not checked.
    """
    checks = columns.CHECKS[table.name]
    checked = [(place, checks[name]) for place, name in enumerate(names) if name not in (*REPEATED, *unused)]
    repeated_texts = itemgetter(*(place for place, name in enumerate(names) if name in REPEATED))
    valid_texts: set[Any] = set()  # combinations of repeated texts that passed: each is checked once
    for row in rows:
        # A plain tuple: access by name costs more than the checks.
        values = tuple(row)
        texts = repeated_texts(values)
        for place, check in checked:
            if check(values[place]) is not None:
                break
        else:
            # The fast way: only the columns that differ from row to row were checked.
            if texts in valid_texts:
                yield row
                continue
        row_values = dict(zip(names, values, strict=True))
        for name in unused:
            del row_values[name]
        problem = row_problem(table, row_values)
        if problem is None:
            valid_texts.add(texts)
            yield row
        else:
            report_odd(f"{row_name(table, row_values)}: {problem}")


def row_name(table: Table, row: tables.Values) -> str:
    """The name of a row in messages."""
    part = {name: printable(value) for name, value in row.items()}
    # A query may have read only some of the columns that the template names.
    part = {column.name: part.get(column.name, "?") for column in table.c}
    return NAMES[table.name].format(**part)


def printable(value: object) -> str:
    """A value as short printable text, for messages."""
    text = value if isinstance(value, str) else repr(value)
    whole = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in whole)


NAMES = {
    "version": "{name}:{number}",
    "metric": "{name}:{number}, metric {metric}",
    "alias": "{name}@{alias}",
    "pulled": "{name}:{number}, its pulls",
    "series": "the numbers of {name}",
    "event": "event {seq} of {name}",
    "facts": "facts {id}",
    "policy": "the policy of @{alias}",
    "waiver": "waiver {id} of {name}:{number}",
    "signature": "the signature of {manifest_digest} by {key_id}",
    "attestation": "the statement on {engine_key} by {key_id}",
    "subscription": "subscriber {id}",
    "delivery": "what subscriber {subscription} is told of event {seq}",
    "store": "the store that the registry is bound to",
    "schema_version": "the schema's number",
}
"""Table -> template for the name of a row."""


def moment(text: str | None) -> datetime | None:
    """The time in a column that was checked."""
    return datetime.fromisoformat(text) if text else None


def facts(rows: Iterable[Row[Any]]) -> dict[str, Facts]:
    """Id -> facts; odd rows are reported and left out."""
    return {row.id: row.facts for row in sound_rows(tables.facts, rows)}


def missing_facts_message(row: tables.Values) -> str:
    """The message for a version whose facts are missing or odd."""
    return f"{row_name(tables.version, row)}: its facts {printable(row['facts_id'])} are missing or odd"
