"""Collects what nobody needs, while builds and pulls go on here and elsewhere."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager as Context
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from artifacts.collection import gc, registries
from artifacts.collection.gc import Plan, Policy
from artifacts.collection.inventory import Inventory, Progress
from artifacts.collection.places import LocalPlace, Place
from artifacts.errors import NotFound, StoreUnusable
from artifacts.manifest import unseal
from artifacts.registry import log, publishing, retention
from artifacts.registry.database import Database
from artifacts.registry.publishing import Binding
from artifacts.registry.retention import Kept, Names
from artifacts.store import lease, objects
from artifacts.store.claim import Claim
from artifacts.store.identity import STORE

WHAT = "gc"
"""What leases that wait for it are told."""


def collect(
    place: Place,
    names: Names,
    policy: Policy,
    *,
    also: Sequence[Database] = (),
    dry_run: bool = False,
    progress: Progress = lambda done, total, unit: None,
) -> Plan:
    """Remove what the policy does not keep; return what was, or with `dry_run` would be, removed.

    Who begins to build, push or pull meanwhile waits until it is decided and out of sight. A registry that
    does not exist, or is of another store, is refused, and so is a store that a registry not asked names
    too. What registries in `also` name all stays: each is collected by itself.
    """
    if names.inside:
        registries.require_same(place.objects, names.database)
    with _asking(names, dry_run=True) as db:
        _require_its_own(db, names, place)  # before anything is read for long
    registries.require_all(place.objects, [names.database.url, *(database.url for database in also)])
    place.prepare(progress)
    with ExitStack() as later, lease.sweeping(place.objects, WHAT) as (marker, claims):
        inventory = place.inventory(marker.renew(), progress)
        with _asking(names, dry_run=dry_run) as db:
            _require_its_own(db, names, place)
            plan = _decided(
                inventory, db, [*claims, *(_needed(database, inventory) for database in also)], policy
            )
            if db is not None and not dry_run:
                retention.collect(db, plan.collected)
        if not dry_run:
            place.remove(plan, marker, later, progress)
    return plan


def _needed(database: Database, inventory: Inventory) -> Claim:
    """Everything that another registry names, as a lease on it."""
    retained = Kept(versions=(), unclear=())
    if database.exists():
        with database.reading() as db:
            retained = retention.known(db)
    versions = [version for version in retained.versions if not version.collected]
    keys = {key for version in versions for key in (version.engine_key, *version.lineage)}
    return _claim([*keys, *_odd_keys(retained, inventory)], database.url)


def _odd_keys(retained: Kept, inventory: Inventory) -> tuple[str, ...]:
    """Keys that versions with odd or missing rows name; all there are, where nothing says which one names."""
    return tuple(inventory.artifacts) if retained.keys is None else retained.keys


def _claim(keys: Sequence[str], holder: str) -> Claim:
    return Claim(path="", keys=tuple(keys), blobs=(), what=holder, holder=holder, ttl_s=math.inf, age_s=0)


def tidy(
    place: LocalPlace,
    policy: Policy,
    *,
    dry_run: bool = False,
    progress: Progress = lambda done, total, unit: None,
) -> Plan:
    """Remove the litter of a cache, and contents without a user; all artifacts stay."""
    lasting = replace(policy, min_age_days=math.inf)
    with ExitStack() as later, lease.sweeping(place.objects, WHAT) as (marker, claims):
        plan = _decided(place.inventory(marker.renew(), progress), None, claims, lasting)
        if not dry_run:
            place.remove(plan, marker, later, progress)
    return plan


def _require_its_own(db: Connection | None, names: Names, place: Place) -> None:
    """Refuses a registry that names the artifacts of another store, or nobody knows of which one."""
    bound = publishing.bound_to(db) if db is not None else None
    if bound is not None:
        expected = Binding(_store_id(place) or "", place.url)
        publishing.require_bound(names.database, bound, expected)
    elif not names.inside:
        raise StoreUnusable(
            f"registry {names.database.url} is bound to no store yet, so that what it needs may be elsewhere;"
            " publish to this store once, then run gc again"
        )


def _store_id(place: Place) -> str | None:
    """Id that the store's own file states; None where an early version made the store."""
    text = objects.read(place.objects, STORE)
    return None if text is None else str(unseal(text.decode(errors="replace"), STORE).get("id"))


def _asking(names: Names, *, dry_run: bool) -> Context[Connection | None]:
    """A transaction on the registry; None where nothing was ever published."""
    if not names.database.exists():
        if names.inside:
            return nullcontext(None)
        raise NotFound(
            f"no registry at {names.database.url}, so nothing says what is needed; give the --registry of"
            " this store"
        )
    return names.database.reading() if dry_run else retention.deciding(names.database)


def _decided(inventory: Inventory, db: Connection | None, claims: list[Claim], policy: Policy) -> Plan:
    if db is None:
        return gc.mark(inventory, (), claims, policy, datetime.now(UTC))
    retained = retention.known(db)
    if retained.unclear:  # what they may name stays, bytes included, and somebody hears of them
        claims = [*claims, _claim(_odd_keys(retained, inventory), gc.UNCLEAR)]
        inventory = replace(
            inventory, problems=(*inventory.problems, *(row.what for row in retained.unclear))
        )
    return gc.mark(inventory, retained.versions, claims, policy, log.moment(db))
