"""Runs a garbage collection while builds and pulls continue on this and other hosts."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager as Context
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from artifacts.byte_progress import ItemProgress
from artifacts.collection import marking, registries
from artifacts.collection.inventory import Inventory
from artifacts.collection.marking import Plan, Policy
from artifacts.collection.places import LocalPlace, Place
from artifacts.errors import NotFound, StoreUnusable
from artifacts.manifest import unseal
from artifacts.registry import log, publishing, retention
from artifacts.registry.database import Database
from artifacts.registry.publishing import Binding
from artifacts.registry.retention import Names, Retention
from artifacts.store import lease, objects
from artifacts.store.claim import Claim
from artifacts.store.store_identity import STORE

WHAT = "gc"
"""Its name in the messages of leases that wait for it."""


def collect(
    place: Place,
    names: Names,
    policy: Policy,
    *,
    also: Sequence[Database] = (),
    dry_run: bool = False,
    progress: ItemProgress = lambda done, total, unit: None,
) -> Plan:
    """Remove what the policy does not keep; return the plan, which `dry_run` only computes.

    Builds, pushes and pulls that begin meanwhile wait until the removed artifacts are out of sight. A missing
    registry, a registry of another store, and a store with a recorded registry that was not given are
    refused. Everything that registries in `also` name is kept: each is collected on its own.
    """
    if names.inside:
        registries.require_same(place.objects, names.database)
    with _registry_transaction(names, dry_run=True) as db:
        _require_its_own(db, names, place)  # fail before the slow reading
    registries.require_all(place.objects, [names.database.url, *(database.url for database in also)])
    place.prepare(progress)
    with ExitStack() as later, lease.sweeping(place.objects, WHAT) as (marker, claims):
        # Ages count by the store's clock, which the renewal returns.
        inventory = place.inventory(marker.renew(), progress)
        with _registry_transaction(names, dry_run=dry_run) as db:
            _require_its_own(db, names, place)
            plan = _make_plan(
                inventory,
                db,
                [*claims, *(_claim_of_registry(database, inventory) for database in also)],
                policy,
            )
            if db is not None and not dry_run:
                # Recorded before any file goes: a version may say "collected" and still have its files, never
                # the reverse.
                retention.collect(db, plan.collected)
        if not dry_run:
            place.remove(plan, marker, later, progress)
    return plan


def _claim_of_registry(database: Database, inventory: Inventory) -> Claim:
    """A lease on everything that another registry names."""
    retained = Retention(versions=(), unclear=())
    if database.exists():
        with database.reading() as db:
            retained = retention.read_retention(db)
    versions = [version for version in retained.versions if not version.collected]
    keys = {key for version in versions for key in (version.engine_key, *version.lineage)}
    return _claim([*keys, *_odd_keys(retained, inventory)], database.url)


def _odd_keys(retained: Retention, inventory: Inventory) -> tuple[str, ...]:
    """Keys that versions with odd or missing rows name; all keys of the store where that is unknown."""
    return tuple(inventory.artifacts) if retained.keys is None else retained.keys


def _claim(keys: Sequence[str], holder: str) -> Claim:
    return Claim(path="", keys=tuple(keys), blobs=(), what=holder, holder=holder, ttl_s=math.inf, age_s=0)


def tidy(
    place: LocalPlace,
    policy: Policy,
    *,
    dry_run: bool = False,
    progress: ItemProgress = lambda done, total, unit: None,
) -> Plan:
    """Remove the litter of a cache, and contents that no artifact uses; keep all artifacts."""
    # With an infinite age every artifact counts as recently used.
    lasting = replace(policy, min_age_days=math.inf)
    with ExitStack() as later, lease.sweeping(place.objects, WHAT) as (marker, claims):
        plan = _make_plan(place.inventory(marker.renew(), progress), None, claims, lasting)
        if not dry_run:
            place.remove(plan, marker, later, progress)
    return plan


def _require_its_own(db: Connection | None, names: Names, place: Place) -> None:
    """Raises a StoreUnusable or StoreMismatch unless the registry belongs to this store."""
    bound = publishing.bound_to(db) if db is not None else None
    if bound is not None:
        expected = Binding(_store_id(place) or "", place.url)
        publishing.require_bound(names.database, bound, expected)
    elif not names.inside:
        raise StoreUnusable(
            f"registry {names.database.url} is bound to no store yet, so its versions may be of another one;"
            " publish to this store once, then run gc again"
        )


def _store_id(place: Place) -> str | None:
    """Id in the store's own file; None for a store made by an early version."""
    text = objects.read(place.objects, STORE)
    return None if text is None else str(unseal(text.decode(errors="replace"), STORE).get("id"))


def _registry_transaction(names: Names, *, dry_run: bool) -> Context[Connection | None]:
    """A transaction on the registry; None where nothing was published yet."""
    if not names.database.exists():
        if names.inside:
            return nullcontext(None)
        raise NotFound(
            f"no registry at {names.database.url}, so gc cannot tell which versions to keep; give the"
            " --registry of this store"
        )
    return names.database.reading() if dry_run else retention.deciding(names.database)


def _make_plan(inventory: Inventory, db: Connection | None, claims: list[Claim], policy: Policy) -> Plan:
    if db is None:
        return marking.mark(inventory, (), claims, policy, datetime.now(UTC))
    retained = retention.read_retention(db)
    if retained.unclear:  # what they may name stays, bytes included, and somebody hears of them
        claims = [*claims, _claim(_odd_keys(retained, inventory), marking.UNCLEAR)]
        inventory = replace(
            inventory, problems=(*inventory.problems, *(row.what for row in retained.unclear))
        )
    return marking.mark(inventory, retained.versions, claims, policy, log.moment(db))
