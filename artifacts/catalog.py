"""The reading half of the registry: names and versions, and which of them suit."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, tuple_

from artifacts import tables
from artifacts.database import Database
from artifacts.errors import NotFound
from artifacts.listed import FIGURES, Listed
from artifacts.match import RANKS, Match, check, match
from artifacts.version import Metric, Reference, VersionRecord, parse_reference

VERSION, METRIC, ALIAS = tables.version.c, tables.metric.c, tables.alias.c

Named = tuple[str, int]
"""Name and number of a version."""

AT_ONCE = 400
"""Versions that one query names one by one; more are read whole."""


class Catalog:
    """Versions of one database, read only. One that does not exist yet has none."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return list(db.scalars(select(VERSION.name).distinct().order_by(VERSION.name)))

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none."""
        found = self._records(VERSION.name == name)
        if not found:
            raise self._unknown(name)
        return found

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        wanted = parse_reference(reference)
        found = self._records((VERSION.name == wanted.name) & (VERSION.number == _number(wanted)))
        if found:
            return found[0]
        rows, count = self.listed(wanted.name, limit=1)
        if not count:
            raise self._unknown(wanted.name)
        aliases = ", ".join(f"@{alias}" for alias in self._aliases(wanted.name)) or "no alias"
        last = rows[-1].number
        raise NotFound(
            f"no {reference!r} in {self._db.url}; {wanted.name} has versions 1 to {last} and {aliases}"
        )

    def listed(self, name: str | None = None, *, limit: int | None = None) -> tuple[list[Listed], int]:
        """Versions to show, by name and number, and how many there are in all.

        Without a name the newest version of each, and those that an alias points at; with one its versions,
        the newest `limit` of them.
        """
        if not self._db.exists():
            return [], 0
        where = _newest_or_aliased() if name is None else VERSION.name == name
        with self._db.reading() as db:
            count = db.scalar(select(func.count()).select_from(tables.version).where(where)) or 0
            order = (VERSION.name, VERSION.number) if name is None else (VERSION.number.desc(),)
            found = _listed(db, where, order, limit)
            found = _with_figures(found, _figures(db, FIGURES, found))
        return sorted(found, key=lambda one: (one.name, one.number)), count

    def find(self, *, rank: str = "speed", limit: int | None = None, **wanted: Any) -> list[Match]:
        """The first `limit` versions that suit, best first, then the others with the reasons against them.

        `artifacts.match.WANTED` lists what can be wanted, `artifacts.match.RANKS` the orders.
        """
        check(wanted, rank)
        if not self._db.exists():
            return []
        asked = (RANKS[rank][0], *wanted.get("slo", {}))
        with self._db.reading() as db:
            every = _listed(db)
            matches = match(_with_figures(every, _figures(db, asked)), wanted, rank)
            suits = [one for one in matches if not one.reasons][:limit]
            rows = [one.record for one in suits if isinstance(one.record, Listed)]
            shown = _with_figures(rows, _figures(db, (*FIGURES, *asked), rows))
        return [*(Match(row, ()) for row in shown), *(one for one in matches if one.reasons)]

    def _records(self, where: ColumnElement[bool]) -> list[VersionRecord]:
        if not self._db.exists():
            return []
        whole = select(tables.version, tables.facts.c.facts).join(
            tables.facts, tables.facts.c.id == VERSION.facts_id
        )
        with self._db.reading() as db:  # one transaction: versions, metrics and aliases of one moment
            rows = db.execute(whole.where(where).order_by(VERSION.name, VERSION.number)).all()
            one = (rows[0].name, rows[0].number) if len(rows) == 1 else None
            names = {row.name for row in rows}
            metrics = select(tables.metric).where(_about(METRIC, names, one)).order_by(METRIC.position)
            aliases = select(tables.alias).where(_about(ALIAS, names, one)).order_by(ALIAS.alias)
            return _version_records(rows, db.execute(metrics).all(), db.execute(aliases).all())

    def _aliases(self, name: str) -> list[str]:
        with self._db.reading() as db:
            return list(db.scalars(select(ALIAS.alias).where(ALIAS.name == name).order_by(ALIAS.alias)))

    def _unknown(self, name: str) -> NotFound:
        known = self.names()
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
        have = f"close to it: {', '.join(near)}" if near else "nothing is published here yet"
        return NotFound(f"no version of {name!r} in {self._db.url}; {have}")


def _number(wanted: Reference) -> Any:
    """The number that a reference means, as the database finds it."""
    if wanted.number is not None:
        return wanted.number
    if wanted.alias is not None:
        here = (ALIAS.name == wanted.name) & (ALIAS.alias == wanted.alias)
        return select(ALIAS.number).where(here).scalar_subquery()
    other = tables.version.alias()
    return select(func.max(other.c.number)).where(other.c.name == wanted.name).scalar_subquery()


def _about(columns: Any, names: Iterable[str], one: Named | None) -> ColumnElement[bool]:
    """Rows of the versions of some names, or of one version alone."""
    if one is not None:
        return and_(columns.name == one[0], columns.number == one[1])
    found: ColumnElement[bool] = columns.name.in_(sorted(names))
    return found


def _newest_or_aliased() -> ColumnElement[bool]:
    other = tables.version.alias()
    newest = select(other.c.name, func.max(other.c.number)).group_by(other.c.name)
    both = tuple_(VERSION.name, VERSION.number)
    return both.in_(newest) | both.in_(select(ALIAS.name, ALIAS.number))


def _listed(
    db: Connection,
    where: ColumnElement[bool] | None = None,
    order: Sequence[Any] = (),
    limit: int | None = None,
) -> list[Listed]:
    """Versions without what only one of them is asked for; versions of one layout share their facts."""
    scalars = (
        VERSION.name, VERSION.number, VERSION.engine_key, VERSION.verdict, VERSION.origin, VERSION.model,
        VERSION.facts_id, VERSION.collected_at, VERSION.published_at,
    )  # fmt: skip
    query = select(*scalars).order_by(*order).limit(limit)
    rows = db.execute(query if where is None else query.where(where)).all()
    needed = select(tables.facts.c.id, tables.facts.c.facts)
    if len(rows) <= AT_ONCE:
        needed = needed.where(tables.facts.c.id.in_({row.facts_id for row in rows}))
    facts = {row.id: row.facts for row in db.execute(needed)}
    pointing: defaultdict[Named, list[str]] = defaultdict(list)
    for name, number, alias in db.execute(
        select(ALIAS.name, ALIAS.number, ALIAS.alias).order_by(ALIAS.alias)
    ):
        pointing[name, number].append(alias)
    return [
        Listed(*row[:6], facts[row[6]], row[7], row[8], tuple(pointing.get((row[0], row[1]), ())))
        for row in rows
    ]


def _figures(
    db: Connection, names: Iterable[str], versions: Sequence[Listed] | None = None
) -> dict[Named, dict[str, float]]:
    """Values of some metrics of some versions, or of all."""
    query = select(METRIC.name, METRIC.number, METRIC.metric, METRIC.value).where(
        METRIC.metric.in_(sorted(set(names)))
    )
    if versions is not None and len(versions) <= AT_ONCE:
        wanted = [(one.name, one.number) for one in versions]
        query = query.where(tuple_(METRIC.name, METRIC.number).in_(wanted))
    found: dict[Named, dict[str, float]] = {}
    for name, number, metric, value in db.execute(query):
        found.setdefault((name, number), {})[metric] = value
    return found


def _with_figures(rows: Iterable[Listed], found: Mapping[Named, Mapping[str, float]]) -> list[Listed]:
    return [replace(one, figures=found.get((one.name, one.number), {})) for one in rows]


def _version_records(
    versions: Sequence[Row[Any]], metrics: Sequence[Row[Any]], aliases: Sequence[Row[Any]]
) -> list[VersionRecord]:
    measured: defaultdict[Named, list[Metric]] = defaultdict(list)
    for row in metrics:
        measured[row.name, row.number].append(Metric(row.metric, row.value, row.low, row.high))
    pointing: defaultdict[Named, list[str]] = defaultdict(list)
    for row in aliases:
        pointing[row.name, row.number].append(row.alias)
    return [
        VersionRecord(
            name=row.name,
            number=row.number,
            engine_key=row.engine_key,
            recipe=row.recipe,
            verdict=row.verdict,
            facts=row.facts,
            lineage=row.lineage,
            checks=row.checks,
            metrics=tuple(measured[row.name, row.number]),
            aliases=tuple(pointing[row.name, row.number]),
            published_at=datetime.fromisoformat(row.published_at),
            published_by=row.published_by,
            model=row.model,
            manifest_digest=row.manifest_digest,
            source=row.source,
            origin=row.origin,
            collected_at=datetime.fromisoformat(row.collected_at) if row.collected_at else None,
        )
        for row in versions
    ]
