"""Collects what nobody needs, while builds and pulls go on here and elsewhere."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager as Context
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from artifacts.collection import marking, registries
from artifacts.collection.inventory import Inventory, Progress
from artifacts.collection.marking import Plan, Policy
from artifacts.collection.places import LocalPlace, Place
from artifacts.errors import NotFound, StoreUnusable
from artifacts.manifest import unseal
from artifacts.registry import log, publishing, retention
from artifacts.registry.database import Database
from artifacts.registry.publishing import Binding
from artifacts.registry.retention import Kept, Names
from artifacts.store import lease, objects
from artifacts.store.claim import Claim
from artifacts.store.store_identity import STORE

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
    registries.require_all(place.objects, [names.database.url, *(one.url for one in also)])
    place.prepare(progress)
    with ExitStack() as later, lease.sweeping(place.objects, WHAT) as (marker, claims):
        found = place.inventory(marker.renew(), progress)
        with _asking(names, dry_run=dry_run) as db:
            _require_its_own(db, names, place)
            plan = _decided(found, db, [*claims, *(_needed(one, found) for one in also)], policy)
            if db is not None and not dry_run:
                retention.collect(db, plan.collected)
        if not dry_run:
            place.remove(plan, marker, later, progress)
    return plan


def _needed(database: Database, inventory: Inventory) -> Claim:
    """Everything that another registry names, as a lease on it."""
    kept = Kept(versions=(), unclear=())
    if database.exists():
        with database.reading() as db:
            kept = retention.known(db)
    named = [one for one in kept.versions if not one.collected]
    keys = {key for one in named for key in (one.engine_key, *one.lineage)}
    return _claim([*keys, *_odd_keys(kept, inventory)], database.url)


def _odd_keys(kept: Kept, inventory: Inventory) -> tuple[str, ...]:
    """Keys that versions with odd or missing rows name; all there are, where nothing says which one names."""
    return tuple(inventory.artifacts) if kept.keys is None else kept.keys


def _claim(keys: Sequence[str], who: str) -> Claim:
    return Claim(path="", keys=tuple(keys), blobs=(), what=who, holder=who, ttl_s=math.inf, age_s=0)


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
        found = Binding(_store_id(place) or "", place.url)
        publishing.require_bound(names.database, bound, found)
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


def _decided(found: Inventory, db: Connection | None, claims: list[Claim], policy: Policy) -> Plan:
    if db is None:
        return marking.mark(found, (), claims, policy, datetime.now(UTC))
    kept = retention.known(db)
    if kept.unclear:  # what they may name stays, bytes included, and somebody hears of them
        claims = [*claims, _claim(_odd_keys(kept, found), marking.UNCLEAR)]
        found = replace(found, problems=(*found.problems, *(one.what for one in kept.unclear)))
    return marking.mark(found, kept.versions, claims, policy, log.moment(db))
