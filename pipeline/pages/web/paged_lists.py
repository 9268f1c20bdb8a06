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


def versions(database: Database, wanted: Wanted, *, offset: int = 0, limit: int = 50) -> Page:
    """The versions wanted, from `offset` on, and how many there are."""
    if not database.exists():
        return Page(0, offset, [])
    with database.reading() as db:
        known = rows.facts(db.execute(select(facts)))
        suits = _conditions(wanted, known)
        total = db.scalar(select(func.count()).select_from(version).where(*suits)) or 0
        found = rows.select_rows(db, version, _ordered(wanted.sort, suits).offset(offset).limit(limit))
        return Page(total, offset, _summaries(db, _with_facts(found, known), known))


def engines(
    database: Database, text: str = "", *, offset: int = 0, limit: int = 50
) -> tuple[int, list[Engine]]:
    """How many names contain the words, and some of them, those published to last first."""
    if not database.exists():
        return 0, []
    said = _contains(text, version.c.name)
    grouped = (
        select(
            version.c.name,
            func.count().label("versions"),
            func.max(version.c.number).label("newest"),
            func.max(version.c.published_at).label("published_at"),
        )
        .where(*said)
        .group_by(version.c.name)
    )
    with database.reading() as db:
        total = db.scalar(select(func.count(version.c.name.distinct())).where(*said)) or 0
        latest = grouped.order_by(func.max(version.c.published_at).desc(), version.c.name)
        found = db.execute(latest.offset(offset).limit(limit)).all()
        named = [row.name for row in found if rows.row_problem(version, {"name": row.name}) is None]
        pointing: defaultdict[str, dict[str, int]] = defaultdict(dict)
        here = select(alias).where(alias.c.name.in_(named)).order_by(alias.c.alias)
        for row in rows.select_rows(db, alias, here):
            pointing[row.name][row.alias] = row.number
        return total, [one for row in found if (one := _engine(db, row, pointing)) is not None]


def _engine(db: Connection, row: Row[Any], pointing: Mapping[str, dict[str, int]]) -> Engine | None:
    """A name in a list; where a version of it is odd, what the others say, and None where there is none."""
    newest, at = row.newest, row.published_at
    seen = {"name": row.name, "number": newest, "published_at": at}
    if rows.row_problem(version, seen) is not None:
        mine = select(version.c.name, version.c.number, version.c.published_at)
        others = rows.select_rows(db, version, mine.where(version.c.name == row.name))
        if not others:
            return None
        newest, at = max(one.number for one in others), max(one.published_at for one in others)
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
    table = tables.log
    query = select(table).limit(limit)
    query = query.where(table.c.name == name) if name else query
    query = query.where(table.c.seq < before) if before is not None else query
    query = query.where(table.c.seq > after) if after is not None else query
    with database.reading() as db:
        found = db.execute(query.order_by(table.c.seq.desc() if after is None else table.c.seq))
        return rows.read_values(found, log.event)


def choices(database: Database) -> dict[str, list[str]]:
    """Formats and backends that some version has, for the menus of a search."""
    if not database.exists():
        return {"format": [], "backend": []}
    with database.reading() as db:
        known = rows.facts(db.execute(select(facts)))
    return {
        what: sorted({str(one[what]) for one in known.values() if one.get(what)})
        for what in ("format", "backend")
    }


def _with_facts(found: Iterable[Row[Any]], known: Collection[str]) -> list[Row[Any]]:
    sound = []
    for row in found:
        if row.facts_id in known:
            sound.append(row)
        else:
            rows.report_odd(rows.missing_facts_message(row._asdict()))
    return sound


def _contains(text: str, *columns: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """A condition per word: one of the columns contains it, whatever its case."""
    return [or_(*(column.icontains(word, autoescape=True) for column in columns)) for word in text.split()]


def _conditions(wanted: Wanted, known: Mapping[str, Mapping[str, Any]]) -> list[ColumnElement[bool]]:
    found = _contains(wanted.text, version.c.name, version.c.model)
    for column in (version.c.name, version.c.verdict, version.c.origin):
        value = getattr(wanted, column.name)
        if value:
            found.append(column == value)
    asked = {"format": wanted.format, "backend": wanted.backend, "tp": wanted.tp}
    asked = {what: value for what, value in asked.items() if value not in ("", None)}
    if asked:  # versions of one layout share their facts: each set is looked at once
        suits = [one for one, has in known.items() if all(has.get(what) == v for what, v in asked.items())]
        found.append(version.c.facts_id.in_(suits))
    return found


COLUMNS = tuple(
    version.c[name]
    for name in ("name", "number", "verdict", "origin", "model", "facts_id", "published_at", "published_by",
                 "collected_at")
)  # fmt: skip


def _ordered(sort: Sort, suits: Iterable[ColumnElement[bool]]) -> Any:
    query = select(*COLUMNS).where(*suits)
    newest = (version.c.published_at.desc(), version.c.name, version.c.number.desc())
    if sort not in ORDERS:
        return query.order_by(*newest)
    name, largest_first = ORDERS[sort]
    of = and_(metric.c.name == version.c.name, metric.c.number == version.c.number, metric.c.metric == name)
    by = metric.c.value.desc() if largest_first else metric.c.value
    return query.outerjoin(metric, of).order_by(by.nulls_last(), *newest)


def _summaries(
    db: Connection, found: Sequence[Row[Any]], known: Mapping[str, Mapping[str, Any]]
) -> list[Summary]:
    keys = [(row.name, row.number) for row in found]
    measured: defaultdict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    here = tuple_(metric.c.name, metric.c.number).in_(keys)
    for row in rows.select_rows(db, metric, select(metric).where(here, metric.c.metric.in_(METRICS))):
        measured[row.name, row.number][row.metric] = row.value
    pointing: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    there = tuple_(alias.c.name, alias.c.number).in_(keys)
    for row in rows.select_rows(db, alias, select(alias).where(there).order_by(alias.c.alias)):
        pointing[row.name, row.number].append(row.alias)
    others = remarks.read(db, keys)
    return [
        _summary(
            row,
            known[row.facts_id],
            measured[row.name, row.number],
            tuple(pointing[row.name, row.number]),
            others[row.name, row.number],
        )
        for row in found
    ]


def _summary(
    row: Row[Any],
    has: Mapping[str, Any],
    measured: Mapping[str, float],
    aliases: tuple[str, ...],
    said: Remarks,
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
        waivers=len(said.open_waivers),
        signatures=len(said.signatures),
        tokens_per_s=measured.get("tokens_per_s"),
        kl=measured.get("kl"),
        size_bytes=measured.get("size_bytes"),
    )
