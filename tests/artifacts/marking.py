"""What the tests of a collection's decisions share: a moment, versions, leases, and what a plan removes."""

from datetime import UTC, datetime, timedelta
from typing import Any

from artifacts.collection.marking import Plan, Policy
from artifacts.registry.retention import RetainedVersion
from artifacts.store.claim import Claim

NOW = datetime(2026, 1, 31, tzinfo=UTC)
EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def version(number: int = 1, key: str = "a", **values: object) -> RetainedVersion:
    made: dict[str, Any] = {"name": "demo", "lineage": (), "published_at": ago(100)} | values
    return RetainedVersion(number=number, engine_key=key, **made)


def claim(*keys: str, blobs: tuple[str, ...] = ()) -> Claim:
    return Claim(path="leases/x.json", keys=keys, blobs=blobs, what="w", holder="h", ttl_s=60, age_s=0)


def removed(plan: Plan) -> set[str]:
    return {one.key for one in plan.removed}
