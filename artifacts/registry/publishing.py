"""How a publication becomes a version: rows of the registry, within the caller's transaction."""

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
    """Of its `store.json`; empty where it has none yet."""
    url: str
    """Where it was when it was bound."""


def check(publication: Publication) -> None:
    """Refuses bad names, and every verdict but PASS; what was imported is UNVERIFIED and nothing else."""
    check_name(publication.name)
    if publication.alias is not None:
        check_alias(publication.alias)
    if publication.verdict != PUBLISHED_AS.get(publication.origin):
        raise NotPublishable(
            f"{publication.name}: the verdict is {publication.verdict}; only PASS is published, and "
            "UNVERIFIED of an engine built elsewhere"
        )


def bind(database: Database, db: Connection, binding: Binding) -> None:
    """Makes the registry that store's, which it stays; another store is a StoreMismatch."""
    bound = bound_to(db)
    if bound is None:
        database.take_turns(db)
        bound = bound_to(db)
    if bound is None:
        row = {"id": binding.id, "url": binding.url, "bound_at": log.moment(db).isoformat()}
        db.execute(insert(tables.store).values(**seals.sealed(tables.store, row)))
    else:
        require_bound(database, bound, binding)


def bound_to(db: Connection) -> Binding | None:
    """The store that the registry is bound to; None before the first publication that says its store."""
    row = db.execute(select(tables.store)).first()
    if row is None:
        return None
    rows.require(tables.store, row)
    return Binding(row.id, row.url)


def bound_at(db: Connection) -> str | None:
    """When the registry was bound to its store, which tells it from any other; None before that."""
    moment: str | None = db.scalar(select(tables.store.c.bound_at))
    return moment


def require_bound(database: Database, bound: Binding, binding: Binding) -> None:
    """Refuses another store than the one the registry is bound to, as StoreMismatch."""
    if bound.id != binding.id:
        this_store = f"this is store {binding.id} at {binding.url}"
        actual = this_store if binding.id else f"{binding.url} is no store yet"
        raise StoreMismatch(
            f"registry {database.url} names artifacts of store {bound.id} (first at {bound.url}), and"
            f" {actual}; use that store, or give this one a registry of its own"
        )


def take_turn(db: Connection, name: str) -> None:
    """Holds the name until the transaction ends; whoever else changes something of it waits.

    Its row is made where it is new; a name that differs from another only by case is a NameRefused.
    """
    table = tables.series
    statement = update(table).where(table.c.name == name).values(last=table.c.last)
    if db.execute(statement).rowcount:
        return
    insert_new(db, table, name=name, folded=name.casefold(), last=0)
    if db.execute(statement).rowcount == 0:  # the name without case was taken, by another name
        check_apart("name", name, db.scalars(select(table.c.name).where(table.c.folded == name.casefold())))


def find_or_add(db: Connection, publication: Publication) -> tuple[int, bool]:
    """Number of the version, and whether it is new: the same content, judged by the same, is one version."""
    table, name = tables.version, publication.name
    existing = _existing_version(db, publication)
    if existing is not None:
        retention.restore(db, name, existing)  # gc may have taken its bytes: they were built again
        return existing, False
    identity = identity_of(publication, publication.manifest_digest)
    _require_no_odd_one(db, name, identity)
    number = _next_number(db, name)
    metrics = [_metric_row(name, number, *item) for item in enumerate(publication.metrics)]
    row = _version_row(db, publication, number, identity)
    db.execute(insert(table), [seals.sealed(table, row, seals.of_metrics(metrics))])
    if metrics:
        db.execute(insert(tables.metric), [rows.check_row(tables.metric, metric) for metric in metrics])
    detail = {"number": number, "engine_key": publication.engine_key, "verdict": publication.verdict}
    log.record(db, name, "published", detail)
    return number, True


def identity_of(publication: Publication, content: str | None) -> str:
    """What the publication is told apart by from others of its name, were `content` the digest it names."""
    return identity(
        publication.engine_key, content, publication.verdict, publication.recipe, publication.lineage
    )


def _existing_version(db: Connection, publication: Publication) -> int | None:
    """The newest version that is this publication, whatever version of enginery published it."""
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
        if own_identity == row_identity and is_same(publication.manifest_digest, row.manifest_digest):
            return int(row.number)
    return None


def _require_no_odd_one(db: Connection, name: str, identity: str) -> None:
    """Refuses a publication that is there already in a row that cannot be read, as ArtifactCorrupt."""
    table = tables.version
    number = db.scalar(select(table.c.number).where(table.c.name == name, table.c.identity == identity))
    if number is not None:
        raise ArtifactCorrupt(
            f"{name}:{number} is this version, and its row in the registry is odd (enginery verify --all says"
            " why); restore the registry from a backup"
        )


def moves_alias(db: Connection, name: str, alias: str, number: int) -> bool:
    """Whether publishing a version that is there already moves an alias.

    Only one that was never asked for it, or where the last that happened is that its policy refused the
    version: what somebody has moved away since stays where it is.
    """
    events = rows.read_values(db.execute(log.newest_first(name, kinds=(*log.MOVES, "refused"))), log.event)
    alias_events = [event for event in events if event.detail["alias"] == alias]
    numbers = [event.detail["number" if event.kind == "refused" else "now"] for event in alias_events]
    return number not in numbers or (alias_events[0].kind == "refused" and numbers[0] == number)


def _next_number(db: Connection, name: str) -> int:
    """Takes the next number, which returns if the transaction fails."""
    table = tables.series
    db.execute(update(table).where(table.c.name == name).values(last=table.c.last + 1))
    number: int = db.execute(select(table.c.last).where(table.c.name == name)).scalar_one()
    return number


def _facts_id(db: Connection, facts: Mapping[str, Any]) -> str:
    """The row that holds the facts, which is made where none does."""
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
