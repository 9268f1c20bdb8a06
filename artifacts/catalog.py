"""The reading half of the registry: names and versions, and which of them suit."""

import difflib
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from artifacts import tables
from artifacts.database import Database
from artifacts.errors import NotFound
from artifacts.match import Match, match
from artifacts.version import Metric, Reference, VersionRecord, parse_reference


class Catalog:
    """Versions of one database, read only. One that does not exist yet has none."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return list(db.scalars(select(tables.version.c.name).distinct().order_by("name")))

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none."""
        found = self._records(name)
        if not found:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
            have = f"close to it: {', '.join(near)}" if near else "nothing is published here yet"
            raise NotFound(f"no version of {name!r} in {self._db.url}; {have}")
        return found

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        wanted = parse_reference(reference)
        versions = self.versions(wanted.name)
        suits = [record for record in versions if _is_meant(record, wanted)]
        if suits:
            return suits[-1]
        have = sorted(alias for record in versions for alias in record.aliases)
        aliases = ", ".join(f"@{alias}" for alias in have) or "no alias"
        last = len(versions)
        raise NotFound(
            f"no {reference!r} in {self._db.url}; {wanted.name} has versions 1 to {last} and {aliases}"
        )

    def find(self, *, rank: str = "speed", **wanted: Any) -> list[Match]:
        """Every version: those that suit, best first, then the others with the reasons they were dropped.

        `artifacts.match.FACTS` lists what can be wanted; `rank` is `speed` or `size`.
        """
        return match(self._records(), wanted, rank)

    def _records(self, name: str | None = None) -> list[VersionRecord]:
        if not self._db.exists():
            return []
        rows = []
        with self._db.reading() as db:  # one transaction: versions, metrics and aliases of one moment
            for table, order in (
                (tables.version, (tables.version.c.name, tables.version.c.number)),
                (tables.metric, (tables.metric.c.position,)),
                (tables.alias, (tables.alias.c.alias,)),
            ):
                columns = (table, tables.facts.c.facts) if table is tables.version else (table,)
                query = select(*columns).order_by(*order)
                if table is tables.version:
                    query = query.join(tables.facts, tables.facts.c.id == table.c.facts_id)
                rows.append(db.execute(query if name is None else query.where(table.c.name == name)).all())
        return _version_records(*rows)


def _is_meant(record: VersionRecord, wanted: Reference) -> bool:
    if wanted.alias is not None:
        return wanted.alias in record.aliases
    return wanted.number is None or wanted.number == record.number


def _version_records(
    versions: Sequence[Row[Any]], metrics: Sequence[Row[Any]], aliases: Sequence[Row[Any]]
) -> list[VersionRecord]:
    measured: defaultdict[tuple[str, int], list[Metric]] = defaultdict(list)
    for row in metrics:
        measured[row.name, row.number].append(Metric(row.metric, row.value, row.low, row.high))
    pointing: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
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
