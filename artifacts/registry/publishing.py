"""Publishes versions: writes the rows of a publication within the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from artifacts import digest
from artifacts.actor import whoami
from artifacts.address import is_same
from artifacts.errors import ArtifactCorrupt, NotPublishable, StoreMismatch
from artifacts.registry import log, retention, rows, seals, tables
from artifacts.registry.database import Database, insert_new
from artifacts.registry.identity import identity
from artifacts.registry.names import check_alias, check_apart, check_name
from artifacts.version import PUBLISHED_AS, Metric, Publication


@dataclass(frozen=True, slots=True)
class Binding:
    """The one store whose artifacts a registry names."""

    id: str
    """Id in its `store.json`; empty where it has none yet."""
    url: str
    """Its URL when the registry was bound to it."""


def check(publication: Publication) -> None:
    """Raise NameRefused or NotPublishable unless names and verdict allow publication.

    A built version needs the verdict PASS, an imported one UNVERIFIED.
    """
    check_name(publication.name)
    if publication.alias is not None:
        check_alias(publication.alias)
    if publication.verdict != PUBLISHED_AS.get(publication.origin):
        raise NotPublishable(
            f"{publication.name}: the verdict is {publication.verdict}; only engines with PASS are "
            "published, and imported engines with UNVERIFIED"
        )


def bind(database: Database, db: Connection, binding: Binding) -> None:
    """Bind the registry to the store for good; StoreMismatch if it is bound to another one."""
    bound = bound_to(db)
    if bound is None:
        # Two first publications to different stores would both find no binding.
        database.take_turns(db)
        bound = bound_to(db)  # another process may have bound it while this one waited
    if bound is None:
        row = {"id": binding.id, "url": binding.url, "bound_at": log.moment(db).isoformat()}
        db.execute(insert(tables.store).values(**seals.sealed(tables.store, row)))
    else:
        require_bound(database, bound, binding)


def bound_to(db: Connection) -> Binding | None:
    """The store that the registry is bound to; None before the first publication with a store."""
    row = db.execute(select(tables.store)).first()
    if row is None:
        return None
    rows.require(tables.store, row)
    return Binding(row.id, row.url)


def bound_at(db: Connection) -> str | None:
    """When the registry was bound to its store, which identifies the registry; None before that."""
    moment: str | None = db.scalar(select(tables.store.c.bound_at))
    return moment


def require_bound(database: Database, bound: Binding, binding: Binding) -> None:
    """Raise a StoreMismatch if `binding` is another store than `bound`."""
    if bound.id != binding.id:
        this_store = f"this is store {binding.id} at {binding.url}"
        actual = this_store if binding.id else f"{binding.url} is no store yet"
        raise StoreMismatch(
            f"registry {database.url} names artifacts of store {bound.id} (first at {bound.url}), and"
            f" {actual}; use that store, or give this one a registry of its own"
        )


def take_turn(db: Connection, name: str) -> None:
    """Lock the name until the transaction ends: other writers of the name wait.

    Adds the row of a new name; NameRefused for a name that differs from another one only by case.
    """
    table = tables.series
    # An update that changes nothing still locks the row.
    statement = update(table).where(table.c.name == name).values(last=table.c.last)
    if db.execute(statement).rowcount:
        return
    insert_new(db, table, name=name, folded=name.casefold(), last=0)
    if db.execute(statement).rowcount == 0:  # another name has the same text without case
        check_apart("name", name, db.scalars(select(table.c.name).where(table.c.folded == name.casefold())))


def find_or_add(db: Connection, publication: Publication) -> tuple[int, bool]:
    """Number of the publication's version, and whether it is new.

    The same content with the same basis of its verdict is the same version.
    """
    table, name = tables.version, publication.name
    existing = _existing_version(db, publication)
    if existing is not None:
        retention.restore(db, name, existing)  # gc may have removed its files, which were built again
        return existing, False
    # The sound rows have no such version; one that cannot be read may still be it, and a second number for it
    # would be wrong.
    identity = identity_of(publication, publication.manifest_digest)
    _require_no_odd_twin(db, name, identity)
    number = _next_number(db, name)
    metrics = [_metric_row(name, number, *item) for item in enumerate(publication.metrics)]
    # The seal covers the metrics, so that they are known before the version's row is written.
    row = _version_row(db, publication, number, identity)
    db.execute(insert(table), [seals.sealed(table, row, seals.of_metrics(metrics))])
    if metrics:
        db.execute(insert(tables.metric), [rows.check_row(tables.metric, metric) for metric in metrics])
    detail = {"number": number, "engine_key": publication.engine_key, "verdict": publication.verdict}
    log.record(db, name, "published", detail)
    return number, True


def identity_of(publication: Publication, content: str | None) -> str:
    """The identity of the publication among versions of its name, if `content` were its manifest digest."""
    return identity(
        publication.engine_key, content, publication.verdict, publication.recipe, publication.lineage
    )


def _existing_version(db: Connection, publication: Publication) -> int | None:
    """Number of the newest version with the identity of the publication, or None.

    Identities are computed from the rows, because earlier versions of enginery stored them differently.
    """
    table = tables.version
    names = ("name", "number", "engine_key", "manifest_digest", "recipe", "lineage")
    query = select(*(table.c[name] for name in names)).where(
        table.c.name == publication.name,
        table.c.engine_key == publication.engine_key,
        table.c.verdict == publication.verdict,
    )
    for row in rows.select_rows(db, table, query.order_by(table.c.number.desc())):
        own_identity = identity_of(publication, row.manifest_digest)
        row_identity = identity(
            publication.engine_key, row.manifest_digest, publication.verdict, row.recipe, row.lineage
        )
        # Both identities use the row's digest, which may be unknown, so contents are compared apart.
        if own_identity == row_identity and is_same(publication.manifest_digest, row.manifest_digest):
            return int(row.number)
    return None


def _require_no_odd_twin(db: Connection, name: str, identity: str) -> None:
    """Raise an ArtifactCorrupt if the publication already exists as a version whose row is odd."""
    table = tables.version
    number = db.scalar(select(table.c.number).where(table.c.name == name, table.c.identity == identity))
    if number is not None:
        raise ArtifactCorrupt(
            f"{name}:{number} is this version, but its row in the registry is odd (enginery verify --all says"
            " why); restore the registry from a backup"
        )


def moves_alias(db: Connection, name: str, alias: str, number: int) -> bool:
    """Whether publishing an existing version again moves an alias.

    It does if the alias was never moved to the version, or if the latest event of the alias is the refusal of
    this version. Otherwise the alias was moved away on purpose, and stays.
    """
    events = rows.read_values(db.execute(log.newest_first(name, kinds=(*log.MOVES, "refused"))), log.event)
    alias_events = [event for event in events if event.detail["alias"] == alias]
    numbers = [event.detail["number" if event.kind == "refused" else "now"] for event in alias_events]
    return number not in numbers or (alias_events[0].kind == "refused" and numbers[0] == number)


def _next_number(db: Connection, name: str) -> int:
    """Allocate the next number of a name; a rollback of the transaction releases it."""
    table = tables.series
    # Added in the database, under the lock of the row: two publications never get one number.
    db.execute(update(table).where(table.c.name == name).values(last=table.c.last + 1))
    number: int = db.execute(select(table.c.last).where(table.c.name == name)).scalar_one()
    return number


def _facts_id(db: Connection, facts: Mapping[str, Any]) -> str:
    """Id of the row with these facts; adds the row if there is none."""
    # The id is the digest of the facts, so two publications of equal facts cannot make two rows.
    facts_id = digest.of_json(dict(facts))
    insert_new(db, tables.facts, id=facts_id, facts=dict(facts))
    return facts_id


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
        "published_at": log.moment(db).isoformat(),
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
