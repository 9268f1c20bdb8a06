"""Names, versions, aliases and their history, in one database; every change is one transaction."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from artifacts import digest, tables
from artifacts.actor import whoami
from artifacts.catalog import Catalog
from artifacts.database import Database, open_database
from artifacts.errors import AliasMoved, NotPublishable
from artifacts.match import Match
from artifacts.version import Event, Metric, Publication, VersionRecord

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
        self._catalog = Catalog(database)
        self.url = database.url
        """Where it is, without the password."""

    @property
    def database(self) -> Database:
        """Where it is kept, for what is kept beside versions: signatures, subscriptions."""
        return self._db

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
        return self._catalog.names()

    def versions(self, name: str) -> list[VersionRecord]:
        """Every version of a name, oldest first; NotFound, with the close names, where it has none."""
        return self._catalog.versions(name)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> number, sorted by alias."""
        table = tables.alias
        rows = self._rows(select(table).where(table.c.name == name).order_by(table.c.alias))
        return {row.alias: row.number for row in rows}

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        return self._catalog.resolve(reference)

    def find(self, *, rank: str = "speed", **wanted: Any) -> list[Match]:
        """Every version: those that suit, best first, then the others with the reasons they were dropped.

        `artifacts.match.FACTS` lists what can be wanted; `rank` is `speed` or `size`.
        """
        return self._catalog.find(rank=rank, **wanted)

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

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        if not self._db.exists():
            return []
        with self._db.reading() as db:
            return db.execute(query).all()


def open_registry(url_or_path: str | Path) -> Registry:
    """The registry at a database URL, or in an SQLite file; one with a newer schema is a StoreUnusable."""
    return Registry(open_database(url_or_path))


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


def _now() -> str:
    return datetime.now(UTC).isoformat()
