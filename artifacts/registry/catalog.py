"""The reading half of the registry: names and versions, and which of them suit."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, select

from artifacts.errors import NotFound
from artifacts.finding.listed import Listed, Named
from artifacts.finding.match import Match, check
from artifacts.registry import listing, remarks, rows, tables
from artifacts.registry.database import Database
from artifacts.registry.remarks import Remarks
from artifacts.registry.rows import OddRow
from artifacts.version import Metric, Reference, VersionRecord, parse_reference

VERSION, METRIC, ALIAS = tables.version.c, tables.metric.c, tables.alias.c


class Catalog:
    """Versions of one database, read only. One that does not exist yet has none."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return self._distinct("name")

    def models(self) -> list[str]:
        """Every source checkpoint that a version was made of, sorted."""
        return [model for model in self._distinct("model") if model]

    def _distinct(self, column: str) -> list[str]:
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            found = db.execute(select(VERSION[column]).distinct().order_by(VERSION[column]))
            return [row[0] for row in rows.sound(tables.version, found)]

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none.

        Rows that are odd are told and left out; where no other is left, an OddRow.
        """
        found, odd = self._records(VERSION.name == name)
        if not found:
            raise odd[0] if odd else self._unknown(name)
        for one in odd:
            rows.tell(one)
        return found

    def every(self) -> Iterator[VersionRecord]:
        """Every version of every name, oldest of each first; rows that are odd are told and left out."""
        for name in self.names():
            found, odd = self._records(VERSION.name == name)
            for one in odd:
                rows.tell(one)
            yield from found

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound.

        One whose row is odd is an OddRow: no other version is what was asked for.
        """
        wanted = parse_reference(reference)
        found, odd = self._records((VERSION.name == wanted.name) & (VERSION.number == _number(wanted)))
        if odd:
            raise odd[0]
        if found:
            return found[0]
        newest, count = self.listed(wanted.name, limit=1)
        if not count:
            raise self._unknown(wanted.name)
        aliases = ", ".join(f"@{alias}" for alias in self._aliases(wanted.name)) or "no alias"
        last = f"has versions 1 to {newest[-1].number}" if newest else "has no version that can be read"
        raise NotFound(f"no {reference!r} in {self._db.url}; {wanted.name} {last} and {aliases}")

    def listed(self, name: str | None = None, *, limit: int | None = None) -> tuple[list[Listed], int]:
        """Versions to show, by name and number, and how many there are in all.

        Without a name the newest version of each, and those that an alias points at; with one its versions,
        the newest `limit` of them.
        """
        if not self._db.exists():
            return [], 0
        with self._db.reading() as db:
            return listing.listed(db, name, limit)

    def find(self, *, rank: str = "speed", limit: int | None = None, **wanted: Any) -> list[Match]:
        """The first `limit` versions that suit, best first, then the others with the reasons against them.

        Versions of another name or model than the wanted are left out. `artifacts.finding.match.WANTED` lists
        what can be wanted, `artifacts.finding.match.RANKS` the orders.
        """
        check(wanted, rank)
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return listing.search(db, wanted, rank, limit)

    def remarks(self, versions: Collection[Named]) -> dict[Named, Remarks]:
        """What others said of these versions: waivers, signatures."""
        if not versions:
            return {}
        with self._db.reading() as db:
            return remarks.read(db, versions)

    def _records(self, where: ColumnElement[bool]) -> tuple[list[VersionRecord], list[OddRow]]:
        """Versions, and what is wrong with those whose rows are odd."""
        if not self._db.exists():
            return [], []
        whole = select(tables.version, tables.facts.c.facts).outerjoin(
            tables.facts, tables.facts.c.id == VERSION.facts_id
        )
        with self._db.reading() as db:  # one transaction: versions, metrics and aliases of one moment
            sound, odd = _apart(db.execute(whole.where(where).order_by(VERSION.name, VERSION.number)))
            one = (sound[0].name, sound[0].number) if len(sound) == 1 else None
            names = {row.name for row in sound}
            metrics = select(tables.metric).where(_about(METRIC, names, one)).order_by(METRIC.position)
            measured: defaultdict[Named, list[Metric]] = defaultdict(list)
            for row in rows.all_of(db, tables.metric, metrics) if sound else ():
                measured[row.name, row.number].append(Metric(row.metric, row.value, row.low, row.high))
            aliases = select(tables.alias).where(_about(ALIAS, names, one)).order_by(ALIAS.alias)
            pointing: defaultdict[Named, list[str]] = defaultdict(list)
            for row in rows.all_of(db, tables.alias, aliases) if sound else ():
                pointing[row.name, row.number].append(row.alias)
        return [_version_record(row, measured, pointing) for row in sound], odd

    def _aliases(self, name: str) -> list[str]:
        query = select(tables.alias).where(ALIAS.name == name).order_by(ALIAS.alias)
        with self._db.reading() as db:
            return [row.alias for row in rows.all_of(db, tables.alias, query)]

    def _unknown(self, name: str) -> NotFound:
        known = self.names()
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
        have = f"close to it: {', '.join(near)}" if near else "nothing is published here yet"
        return NotFound(f"no version of {name!r} in {self._db.url}; {have}")


def _apart(found: Iterable[Row[Any]]) -> tuple[list[Row[Any]], list[OddRow]]:
    """Rows of versions with their facts: the sound ones, and what is wrong with the others."""
    sound, odd = [], []
    for row in found:
        try:
            rows.require_version(row)
            sound.append(row)
        except OddRow as exc:
            odd.append(exc)
    return sound, odd


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


def _version_record(
    row: Row[Any], measured: Mapping[Named, list[Metric]], pointing: Mapping[Named, list[str]]
) -> VersionRecord:
    here = (row.name, row.number)
    return VersionRecord(
        name=row.name,
        number=row.number,
        engine_key=row.engine_key,
        recipe=row.recipe,
        verdict=row.verdict,
        facts=row.facts,
        lineage=row.lineage,
        checks=row.checks,
        metrics=tuple(measured[here]),
        aliases=tuple(pointing[here]),
        published_at=datetime.fromisoformat(row.published_at),
        published_by=row.published_by,
        model=row.model,
        manifest_digest=row.manifest_digest,
        source=row.source,
        origin=row.origin,
        collected_at=rows.moment(row.collected_at),
    )
