"""Names, versions, aliases and their history, in one database; every change is one transaction."""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from artifacts import digest, tables
from artifacts.actor import whoami
from artifacts.database import Database, open_database
from artifacts.errors import AliasMoved, NotFound, NotPublishable
from artifacts.match import Match, match
from artifacts.version import Event, Metric, Publication, Reference, VersionRecord, parse_reference

__all__ = [
    "Event",
    "Match",
    "Metric",
    "Publication",
    "Registry",
    "VersionRecord",
    "open_registry",
    "whoami",
]


class Registry:
    """One registry. Reading one that does not exist yet finds nothing; the first write makes it."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.url = database.url
        """Where it is, without the password."""

    def publish(self, publication: Publication) -> int:
        """Add a version and move its alias; return its number.

        The same engine, recipe and verdict again is the version that is already there, and moves nothing: a
        run that was killed after publishing can be repeated. A verdict other than PASS is a NotPublishable.
        """
        if publication.verdict != "PASS":
            raise NotPublishable(
                f"{publication.name}: the verdict is {publication.verdict}; only PASS is published"
            )
        try:
            return self._publish(publication)
        except IntegrityError:
            # PostgreSQL, where somebody published this name for the first time meanwhile: now it has a row
            return self._publish(publication)

    def _publish(self, publication: Publication) -> int:
        identity = digest.of_json([publication.engine_key, dict(publication.recipe), publication.verdict])
        with self._db.writing() as db:
            number = _next_number(db, publication.name)
            found = db.scalar(
                select(tables.version.c.number).where(
                    tables.version.c.name == publication.name, tables.version.c.identity == identity
                )
            )
            if found is not None:
                db.rollback()
                return int(found)
            db.execute(insert(tables.version), [_version_row(db, publication, number, identity)])
            metrics = [
                _metric_row(publication.name, number, *item) for item in enumerate(publication.metrics)
            ]
            if metrics:
                db.execute(insert(tables.metric), metrics)
            detail = {"number": number, "engine_key": publication.engine_key, "verdict": publication.verdict}
            _record(db, publication.name, "published", detail)
            if publication.alias is not None:
                _move(db, publication.name, publication.alias, number)
        return number

    def promote(self, name: str, alias: str, *, to: int, expect: int | None) -> None:
        """Point `alias` at version `to` if it is at `expect` (None: nowhere yet); otherwise AliasMoved."""
        self.resolve(f"{name}:{to}")
        with self._db.writing() as db:
            # This write comes before the look, so that PostgreSQL too makes promoters of one name take turns.
            db.execute(
                update(tables.series).where(tables.series.c.name == name).values(last=tables.series.c.last)
            )
            found = _number_of(db, name, alias)
            if found != expect:
                at, wanted = (f"version {n}" if n else "no version" for n in (found, expect))
                raise AliasMoved(f"{name}@{alias} is at {at}, not {wanted}; look again and retry")
            _move(db, name, alias, to)

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return [row.name for row in self._rows(select(tables.version.c.name).distinct().order_by("name"))]

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none."""
        found = self._records(name)
        if not found:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
            have = f"close to it: {', '.join(near)}" if near else "nothing is published here yet"
            raise NotFound(f"no version of {name!r} in {self.url}; {have}")
        return found

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> number, sorted by alias."""
        table = tables.alias
        rows = self._rows(select(table).where(table.c.name == name).order_by(table.c.alias))
        return {row.alias: row.number for row in rows}

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        wanted = parse_reference(reference)
        versions = self.versions(wanted.name)
        suits = [record for record in versions if _is_meant(record, wanted)]
        if suits:
            return suits[-1]
        aliases = ", ".join(f"@{alias}" for alias in self.aliases(wanted.name)) or "no alias"
        raise NotFound(
            f"no {reference!r} in {self.url}; {wanted.name} has versions 1 to {len(versions)} and {aliases}"
        )

    def find(self, *, rank: str = "speed", **wanted: Any) -> list[Match]:
        """Every version: those that suit, best first, then the others with the reasons they were dropped.

        `artifacts.match.FACTS` lists what can be wanted; `rank` is `speed` or `size`.
        """
        return match(self._records(), wanted, rank)

    def events(self, name: str) -> list[Event]:
        """What happened to a name, oldest first."""
        query = select(tables.log).where(tables.log.c.name == name).order_by(tables.log.c.seq)
        return [
            Event(
                seq=row.seq,
                at=datetime.fromisoformat(row.at),
                name=row.name,
                kind=row.kind,
                by=row.by,
                detail=row.detail,
            )
            for row in self._rows(query)
        ]

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

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return db.execute(query).all()


def open_registry(url_or_path: str | Path) -> Registry:
    """The registry at a database URL, or in an SQLite file; one with a newer schema is a StoreUnusable."""
    return Registry(open_database(url_or_path))


def _is_meant(record: VersionRecord, wanted: Reference) -> bool:
    if wanted.alias is not None:
        return wanted.alias in record.aliases
    return wanted.number is None or wanted.number == record.number


def _next_number(db: Connection, name: str) -> int:
    """Take the next number, which returns if the transaction fails; nobody else takes one before it ends."""
    table = tables.series
    if db.execute(update(table).where(table.c.name == name).values(last=table.c.last + 1)).rowcount == 0:
        db.execute(insert(table).values(name=name, folded=name.casefold(), last=1))
    number: int = db.execute(select(table.c.last).where(table.c.name == name)).scalar_one()
    return number


def _number_of(db: Connection, name: str, alias: str) -> int | None:
    table = tables.alias
    found: int | None = db.scalar(select(table.c.number).where(table.c.name == name, table.c.alias == alias))
    return found


def _move(db: Connection, name: str, alias: str, number: int) -> None:
    was, table = _number_of(db, name, alias), tables.alias
    moved = {"number": number, "moved_at": _now(), "moved_by": whoami()}
    if was is None:
        db.execute(insert(table).values(name=name, alias=alias, **moved))
    else:
        here = (table.c.name == name) & (table.c.alias == alias)
        db.execute(update(table).where(here).values(**moved))
    _record(db, name, "alias_moved", {"alias": alias, "was": was, "now": number})


def _record(db: Connection, name: str, kind: str, detail: dict[str, Any]) -> None:
    db.execute(insert(tables.log).values(at=_now(), name=name, kind=kind, by=whoami(), detail=detail))


def _facts_id(db: Connection, facts: Mapping[str, Any]) -> str:
    """The row that holds the facts, which is made where none does; the caller holds the write lock."""
    found, table = digest.of_json(dict(facts)), tables.facts
    if db.scalar(select(table.c.id).where(table.c.id == found)) is None:
        db.execute(insert(table).values(id=found, facts=dict(facts)))
    return found


def _version_row(db: Connection, publication: Publication, number: int, identity: str) -> dict[str, Any]:
    return {
        "name": publication.name,
        "number": number,
        "engine_key": publication.engine_key,
        "identity": identity,
        "verdict": publication.verdict,
        "recipe": dict(publication.recipe),
        "lineage": dict(publication.lineage),
        "checks": [dict(check) for check in publication.checks],
        "source": dict(publication.source),
        "facts_id": _facts_id(db, publication.facts),
        "model": publication.model,
        "manifest_digest": publication.manifest_digest,
        "origin": publication.origin,
        "published_at": _now(),
        "published_by": whoami(),
    }


def _metric_row(name: str, number: int, position: int, metric: Metric) -> dict[str, Any]:
    return {
        "name": name,
        "number": number,
        "position": position,
        "metric": metric.name,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
    }


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


def _now() -> str:
    return datetime.now(UTC).isoformat()
