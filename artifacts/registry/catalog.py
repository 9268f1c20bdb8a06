"""The read-only part of the registry: names, versions and searches."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, select

from artifacts.errors import NotFound
from artifacts.finding.listed import Listed, Named
from artifacts.finding.match import Match, check_criteria
from artifacts.registry import listing, remarks, rows, tables
from artifacts.registry.database import Database
from artifacts.registry.remarks import Remarks
from artifacts.registry.rows import OddRow
from artifacts.version import Metric, Reference, VersionRecord, parse_reference

VERSION, METRIC, ALIAS = tables.version.c, tables.metric.c, tables.alias.c


class Catalog:
    """Versions of one database, read only. A missing database has none."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return self._distinct("name")

    def models(self) -> list[str]:
        """Every source checkpoint of a version, sorted."""
        return [model for model in self._distinct("model") if model]

    def _distinct(self, column: str) -> list[str]:
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            result = db.execute(select(VERSION[column]).distinct().order_by(VERSION[column]))
            return [row[0] for row in rows.sound_rows(tables.version, result)]

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound with similar names where there is none.

        Odd rows are reported and left out; OddRow where all of them are odd.
        """
        records, odd_rows = self._records(VERSION.name == name)
        if not records:
            # With only odd rows, "no such version" would be wrong.
            raise odd_rows[0] if odd_rows else self._unknown(name)
        for odd_row in odd_rows:
            rows.report_odd(odd_row)
        return records

    def every(self) -> Iterator[VersionRecord]:
        """Every version of every name, oldest of each first; odd rows are reported and left out."""
        for name in self.names():
            records, odd_rows = self._records(VERSION.name == name)
            for odd_row in odd_rows:
                rows.report_odd(odd_row)
            yield from records

    def resolve(self, reference: str) -> VersionRecord:
        """The version of `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound.

        OddRow where its row is odd: no other version may stand in for it.
        """
        target = parse_reference(reference)
        # The alias is resolved inside the same query, so it cannot move between two reads.
        records, odd_rows = self._records((VERSION.name == target.name) & (VERSION.number == _number(target)))
        if odd_rows:
            raise odd_rows[0]
        if records:
            return records[0]
        # Only for the message: the name may exist without this version.
        newest, count = self.listed(target.name, limit=1)
        if not count:
            raise self._unknown(target.name)
        aliases = ", ".join(f"@{alias}" for alias in self._aliases(target.name)) or "no alias"
        available = f"has versions 1 to {newest[-1].number}" if newest else "has no version that can be read"
        raise NotFound(f"no {reference!r} in {self._db.url}; {target.name} {available} and {aliases}")

    def listed(self, name: str | None = None, *, limit: int | None = None) -> tuple[list[Listed], int]:
        """Versions for a list, by name and number, and their number before `limit`.

        Without a name: the newest version of each name, and aliased versions. With a name: its newest ones.
        """
        if not self._db.exists():
            return [], 0
        with self._db.reading() as db:
            return listing.listed(db, name, limit)

    def find(self, *, rank: str = "speed", limit: int | None = None, **criteria: Any) -> list[Match]:
        """The first `limit` matching versions, best first, then the others with the reasons against them.

        Versions of another name or model than in the criteria are left out.
        `artifacts.finding.match.CRITERIA` lists the criteria, `artifacts.finding.match.RANKS` the orders.
        """
        check_criteria(criteria, rank)
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return listing.search(db, criteria, rank, limit)

    def remarks(self, versions: Collection[Named]) -> dict[Named, Remarks]:
        """Waivers and signatures of these versions."""
        if not versions:
            return {}
        with self._db.reading() as db:
            return remarks.read(db, versions)

    def _records(self, condition: ColumnElement[bool]) -> tuple[list[VersionRecord], list[OddRow]]:
        """Versions that meet the condition, and the problems of those whose rows are odd."""
        if not self._db.exists():
            return [], []
        # Outer: a version whose facts are missing is odd, and must be reported rather than left out.
        query = select(tables.version, tables.facts.c.facts).outerjoin(
            tables.facts, tables.facts.c.id == VERSION.facts_id
        )
        with self._db.reading() as db:  # one transaction: versions, metrics and aliases of one moment
            valid, odd_rows = _split_odd(
                db.execute(query.where(condition).order_by(VERSION.name, VERSION.number))
            )
            # `resolve` needs one version: reading a whole name's metrics for it would be wasteful.
            single = (valid[0].name, valid[0].number) if len(valid) == 1 else None
            names = {row.name for row in valid}
            metrics = select(tables.metric).where(_rows_of(METRIC, names, single)).order_by(METRIC.position)
            measured: defaultdict[Named, list[Metric]] = defaultdict(list)
            for row in rows.select_rows(db, tables.metric, metrics) if valid else ():
                measured[row.name, row.number].append(Metric(row.metric, row.value, row.low, row.high))
            aliases = select(tables.alias).where(_rows_of(ALIAS, names, single)).order_by(ALIAS.alias)
            aliases_of: defaultdict[Named, list[str]] = defaultdict(list)
            for row in rows.select_rows(db, tables.alias, aliases) if valid else ():
                aliases_of[row.name, row.number].append(row.alias)
        return [_version_record(row, measured, aliases_of) for row in valid], odd_rows

    def _aliases(self, name: str) -> list[str]:
        query = select(tables.alias).where(ALIAS.name == name).order_by(ALIAS.alias)
        with self._db.reading() as db:
            return [row.alias for row in rows.select_rows(db, tables.alias, query)]

    def _unknown(self, name: str) -> NotFound:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:5]
        hint = f"similar names: {', '.join(close)}" if close else "nothing is published here yet"
        return NotFound(f"no version of {name!r} in {self._db.url}; {hint}")


def _split_odd(result: Iterable[Row[Any]]) -> tuple[list[Row[Any]], list[OddRow]]:
    """Rows of versions with their facts: the valid ones, and the problems of the others."""
    valid, odd_rows = [], []
    for row in result:
        try:
            rows.require_version(row)
            valid.append(row)
        except OddRow as exc:
            odd_rows.append(exc)
    return valid, odd_rows


def _number(reference: Reference) -> Any:
    """The number in a reference, or the subquery that finds it."""
    if reference.number is not None:
        return reference.number
    if reference.alias is not None:
        this_alias = (ALIAS.name == reference.name) & (ALIAS.alias == reference.alias)
        return select(ALIAS.number).where(this_alias).scalar_subquery()
    versions = tables.version.alias()
    return select(func.max(versions.c.number)).where(versions.c.name == reference.name).scalar_subquery()


def _rows_of(columns: Any, names: Iterable[str], single: Named | None) -> ColumnElement[bool]:
    """The condition for rows of versions of some names, or of one version."""
    if single is not None:
        return and_(columns.name == single[0], columns.number == single[1])
    condition: ColumnElement[bool] = columns.name.in_(sorted(names))
    return condition


def _version_record(
    row: Row[Any], measured: Mapping[Named, list[Metric]], aliases_of: Mapping[Named, list[str]]
) -> VersionRecord:
    version_id = (row.name, row.number)
    return VersionRecord(
        name=row.name,
        number=row.number,
        engine_key=row.engine_key,
        recipe=row.recipe,
        verdict=row.verdict,
        facts=row.facts,
        lineage=row.lineage,
        checks=row.checks,
        metrics=tuple(measured[version_id]),
        aliases=tuple(aliases_of[version_id]),
        published_at=datetime.fromisoformat(row.published_at),
        published_by=row.published_by,
        model=row.model,
        manifest_digest=row.manifest_digest,
        source=row.source,
        origin=row.origin,
        collected_at=rows.moment(row.collected_at),
    )
