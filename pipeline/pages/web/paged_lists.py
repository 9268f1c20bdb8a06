"""Long lists read page by page: names, versions, events; never a recipe, however many versions there are."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, tuple_

from artifacts.registry import log, remarks, rows, tables
from artifacts.registry.database import Database
from artifacts.registry.remarks import Remarks
from artifacts.version import Event

Sort = Literal["newest", "fastest", "smallest", "closest"]

ORDERS: Mapping[str, tuple[str, bool]] = {
    "fastest": ("tokens_per_s", True),
    "smallest": ("size_bytes", False),
    "closest": ("kl", False),
}
"""Sort -> metric, and whether the largest comes first; versions without it come last."""

METRICS = ("tokens_per_s", "kl", "size_bytes")
"""Metrics that a list shows."""

version, metric, alias, facts, waiver = (
    tables.version, tables.metric, tables.alias, tables.facts, tables.waiver
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One version in a list."""

    name: str
    number: int
    verdict: str
    origin: str
    model: str
    format: str | None
    backend: str | None
    tp: int | None
    pp: int | None
    published_at: datetime
    published_by: str
    collected_at: datetime | None
    aliases: tuple[str, ...]
    waivers: int
    """Open ones."""
    signatures: int
    """Over its manifest; nothing is checked here."""
    tokens_per_s: float | None
    kl: float | None
    size_bytes: float | None

    @property
    def reference(self) -> str:
        """`NAME:NUMBER`."""
        return f"{self.name}:{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One name in a list."""

    name: str
    versions: int
    newest: int
    published_at: datetime
    aliases: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list of versions is narrowed to; empty values ask for nothing."""

    text: str = ""
    """Words that name or model contain, all of them."""
    name: str = ""
    format: str = ""
    backend: str = ""
    tp: int | None = None
    verdict: str = ""
    origin: str = ""
    sort: Sort = "newest"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    total: int
    offset: int
    rows: list[Summary]


def versions(database: Database, query: Wanted, *, offset: int = 0, limit: int = 50) -> Page:
    """The versions wanted, from `offset` on, and how many there are."""
    if not database.exists():
        return Page(0, offset, [])
    with database.reading() as db:
        # versions of one layout share their facts: there are few of them, and all are read at once
        version_facts = rows.facts(db.execute(select(facts)))
        suits = _conditions(query, version_facts)
        # counted by the database; rows that turn out odd below are in it
        total = db.scalar(select(func.count()).select_from(version).where(*suits)) or 0
        records = rows.select_rows(db, version, _ordered(query.sort, suits).offset(offset).limit(limit))
        return Page(total, offset, _summaries(db, _with_facts(records, version_facts), version_facts))


def engines(
    database: Database, text: str = "", *, offset: int = 0, limit: int = 50
) -> tuple[int, list[Engine]]:
    """How many names contain the words, and some of them, those published to last first."""
    if not database.exists():
        return 0, []
    matches = _contains(text, version.c.name)
    grouped = (
        select(
            version.c.name,
            func.count().label("versions"),
            func.max(version.c.number).label("newest"),
            func.max(version.c.published_at).label("published_at"),
        )
        .where(*matches)
        .group_by(version.c.name)
    )
    with database.reading() as db:
        total = db.scalar(select(func.count(version.c.name.distinct())).where(*matches)) or 0
        latest = grouped.order_by(func.max(version.c.published_at).desc(), version.c.name)
        page = db.execute(latest.offset(offset).limit(limit)).all()
        names = [row.name for row in page if rows.row_problem(version, {"name": row.name}) is None]
        pointing: defaultdict[str, dict[str, int]] = defaultdict(dict)
        # one query for the whole page instead of one per name
        pointed = select(alias).where(alias.c.name.in_(names)).order_by(alias.c.alias)
        for row in rows.select_rows(db, alias, pointed):
            pointing[row.name][row.alias] = row.number
        return total, [engine_row for row in page if (engine_row := _engine(db, row, pointing)) is not None]


def _engine(db: Connection, row: Row[Any], pointing: Mapping[str, dict[str, int]]) -> Engine | None:
    """A name in a list; where a version of it is odd, what the others say, and None where there is none."""
    newest, at = row.newest, row.published_at
    seen = {"name": row.name, "number": newest, "published_at": at}
    # `max` over the column took an odd value: the sound rows decide instead
    if rows.row_problem(version, seen) is not None:
        own = select(version.c.name, version.c.number, version.c.published_at)
        others = rows.select_rows(db, version, own.where(version.c.name == row.name))
        if not others:
            return None
        newest, at = max(other.number for other in others), max(other.published_at for other in others)
    return Engine(
        name=row.name,
        versions=row.versions,
        newest=newest,
        published_at=datetime.fromisoformat(at),
        aliases=pointing.get(row.name, {}),
    )


def events(
    database: Database,
    name: str = "",
    *,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[Event]:
    """Events of a name, or of all: the newest first, or with `after`, the oldest beyond it first."""
    if not database.exists():
        return []
    # not named `log`, which is the imported module
    table = tables.log
    query = select(table).limit(limit)
    query = query.where(table.c.name == name) if name else query
    query = query.where(table.c.seq < before) if before is not None else query
    query = query.where(table.c.seq > after) if after is not None else query
    with database.reading() as db:
        result = db.execute(query.order_by(table.c.seq.desc() if after is None else table.c.seq))
        return rows.read_values(result, log.event)


def choices(database: Database) -> dict[str, list[str]]:
    """Formats and backends that some version has, for the menus of a search."""
    if not database.exists():
        return {"format": [], "backend": []}
    with database.reading() as db:
        version_facts = rows.facts(db.execute(select(facts)))
    return {
        field: sorted({str(facts_row[field]) for facts_row in version_facts.values() if facts_row.get(field)})
        for field in ("format", "backend")
    }


def _with_facts(page: Iterable[Row[Any]], version_facts: Collection[str]) -> list[Row[Any]]:
    sound = []
    for row in page:
        if row.facts_id in version_facts:
            sound.append(row)
        else:
            rows.report_odd(rows.missing_facts_message(row._asdict()))
    return sound


def _contains(text: str, *columns: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """A condition per word: one of the columns contains it, whatever its case."""
    # autoescape: `%` and `_` in a word stand for themselves
    return [or_(*(column.icontains(word, autoescape=True) for column in columns)) for word in text.split()]


def _conditions(query: Wanted, version_facts: Mapping[str, Mapping[str, Any]]) -> list[ColumnElement[bool]]:
    condition = _contains(query.text, version.c.name, version.c.model)
    for column in (version.c.name, version.c.verdict, version.c.origin):
        value = getattr(query, column.name)
        if value:
            condition.append(column == value)
    filters = {"format": query.format, "backend": query.backend, "tp": query.tp}
    filters = {field: value for field, value in filters.items() if value not in ("", None)}
    if filters:  # versions of one layout share their facts: each set is looked at once
        suits = [
            key
            for key, has in version_facts.items()
            if all(has.get(field) == v for field, v in filters.items())
        ]
        condition.append(version.c.facts_id.in_(suits))
    return condition


COLUMNS = tuple(
    version.c[name]
    for name in ("name", "number", "verdict", "origin", "model", "facts_id", "published_at", "published_by",
                 "collected_at")
)  # fmt: skip


def _ordered(sort: Sort, suits: Iterable[ColumnElement[bool]]) -> Any:
    query = select(*COLUMNS).where(*suits)
    # name and number decide between equals, else a row could be on two pages or none
    newest = (version.c.published_at.desc(), version.c.name, version.c.number.desc())
    if sort not in ORDERS:
        return query.order_by(*newest)
    name, largest_first = ORDERS[sort]
    of = and_(metric.c.name == version.c.name, metric.c.number == version.c.number, metric.c.metric == name)
    by = metric.c.value.desc() if largest_first else metric.c.value
    return query.outerjoin(metric, of).order_by(by.nulls_last(), *newest)


def _summaries(
    db: Connection, page: Sequence[Row[Any]], version_facts: Mapping[str, Mapping[str, Any]]
) -> list[Summary]:
    # of this page alone, which bounds the three queries below
    keys = [(row.name, row.number) for row in page]
    measured: defaultdict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    is_listed = tuple_(metric.c.name, metric.c.number).in_(keys)
    for row in rows.select_rows(db, metric, select(metric).where(is_listed, metric.c.metric.in_(METRICS))):
        measured[row.name, row.number][row.metric] = row.value
    pointing: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    has_alias = tuple_(alias.c.name, alias.c.number).in_(keys)
    for row in rows.select_rows(db, alias, select(alias).where(has_alias).order_by(alias.c.alias)):
        pointing[row.name, row.number].append(row.alias)
    others = remarks.read(db, keys)
    return [
        _summary(
            row,
            version_facts[row.facts_id],
            measured[row.name, row.number],
            tuple(pointing[row.name, row.number]),
            others[row.name, row.number],
        )
        for row in page
    ]


def _summary(
    row: Row[Any],
    has: Mapping[str, Any],
    measured: Mapping[str, float],
    aliases: tuple[str, ...],
    remarks: Remarks,
) -> Summary:
    return Summary(
        name=row.name,
        number=row.number,
        verdict=row.verdict,
        origin=row.origin,
        model=row.model,
        format=has.get("format"),
        backend=has.get("backend"),
        tp=has.get("tp"),
        pp=has.get("pp"),
        published_at=datetime.fromisoformat(row.published_at),
        published_by=row.published_by,
        collected_at=rows.moment(row.collected_at),
        aliases=aliases,
        waivers=len(remarks.open_waivers),
        signatures=len(remarks.signatures),
        tokens_per_s=measured.get("tokens_per_s"),
        kl=measured.get("kl"),
        size_bytes=measured.get("size_bytes"),
    )
