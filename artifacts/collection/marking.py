"""Plans a garbage collection from a store's inventory, the registry's versions and the leases. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from artifacts.address import key_of
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter
from artifacts.registry.retention import RetainedVersion
from artifacts.store.claim import Claim

DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is kept in addition to aliased versions, rollback targets and leased artifacts."""

    keep_last: int = 3
    """Newest versions of every name."""
    keep_pulled_days: float = 30.0
    """Versions pulled within so many days."""
    min_age_days: float = 7.0
    """Versions published, and artifacts and files used, within so many days: a run may still need them."""
    litter_days: float = 14.0
    """Partial builds, quarantined artifacts, logs, download and tuning caches used within so many days."""
    lineage: bool = True
    """Whether to keep the artifacts that kept versions were built from and evaluated by."""

    def __post_init__(self) -> None:
        numbers = (self.keep_last, self.keep_pulled_days, self.min_age_days, self.litter_days)
        # Not `any(number < 0)`, which NaN would pass.
        if not all(number >= 0 for number in numbers):
            raise ValueError(f"{self} has a negative or undefined number; give numbers from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A version and why it is kept."""

    reference: str
    engine_key: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """An artifact to remove."""

    key: str
    kind: str
    size_bytes: int
    """Of all its files, shared ones included."""
    age_s: float
    """Since its last use."""
    versions: tuple[str, ...]
    """Versions collected with it; empty for an artifact that no version names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a collection removes, and what it keeps for which reason."""

    policy: Policy
    versions: tuple[Kept, ...]
    collected: tuple[RetainedVersion, ...]
    """Versions whose engine is removed or already missing."""
    removed: tuple[Removal, ...]
    blobs: Mapping[str, Blob]
    """Contents to remove, by id."""
    litter: tuple[Litter, ...]
    kept: Mapping[str, int]
    """Reason -> number of artifacts whose first reason it is."""
    freed_bytes: int
    """Bytes that the disk gains: shared bytes count once, and only if no kept artifact shares them."""
    kept_bytes: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "policy": asdict(self.policy),
            "versions": [asdict(item) for item in self.versions],
            "collected": [item.reference for item in self.collected],
            "removed": [asdict(item) for item in self.removed],
            "blobs": len(self.blobs),
            "litter": [
                {"place": item.place, "size_bytes": item.size_bytes, "owners": list(item.owners)}
                for item in self.litter
            ],
            "kept": dict(self.kept),
            "freed_bytes": self.freed_bytes,
            "kept_bytes": self.kept_bytes,
            "problems": list(self.problems),
        }


def mark(
    inventory: Inventory,
    versions: Iterable[RetainedVersion],
    claims: Iterable[Claim],
    policy: Policy,
    now: datetime,
) -> Plan:
    """Plan a collection; `now` is by the clock that dated the versions."""
    claims, versions = list(claims), list(versions)
    retained_versions = retained(versions, policy, now)
    leased = {
        key_of(key): UNCLEAR if claim.what == UNCLEAR else LEASED for claim in claims for key in claim.keys
    }
    reason_of = _with_inputs(inventory, _roots(inventory, retained_versions, leased, policy), leased, policy)
    kept_by_key = _by_key(inventory.artifacts[name] for name in reason_of)
    removed_versions = [
        version
        for version in versions
        # A lease may keep the engine of a version that the policy lets go: then the version is not collected
        # either.
        if version not in retained_versions and not _has_content(kept_by_key, version)
    ]
    collected = tuple(version for version in removed_versions if not version.collected)
    blobs = _unneeded_blobs(inventory, reason_of, claims, policy)
    litter = tuple(version for version in inventory.litter if _is_expired(version, reason_of, leased, policy))
    # A hard link from outside the store keeps the bytes on the disk.
    freed_blob_bytes = sum(blob.size_bytes for blob in blobs.values() if not blob.strangers)
    return Plan(
        policy=policy,
        versions=tuple(
            Kept(reference=version.reference, engine_key=version.engine_key, reasons=reasons)
            for version, reasons in retained_versions.items()
        ),
        collected=collected,
        removed=_removals(inventory, reason_of, removed_versions),
        blobs=blobs,
        litter=litter,
        kept=_count_reasons(reason_of.values()),
        freed_bytes=freed_blob_bytes + sum(version.size_bytes for version in litter),
        kept_bytes=sum(blob.size_bytes for blob in inventory.blobs.values()) - freed_blob_bytes,
        problems=(*inventory.problems, *_missing(inventory, retained_versions)),
    )


def retained(
    versions: Iterable[RetainedVersion], policy: Policy, now: datetime
) -> dict[RetainedVersion, tuple[str, ...]]:
    """Version to keep -> reasons; versions that were collected before are left out."""
    of_name: defaultdict[str, list[RetainedVersion]] = defaultdict(list)
    for version in versions:
        if not version.collected:
            of_name[version.name].append(version)
    reasons_of = {}
    for name in sorted(of_name):
        # By number, not by time: a clock that was wrong must not make an old version the newest.
        ranked = sorted(of_name[name], key=lambda item: -item.number)
        for rank, version in enumerate(ranked):
            if reasons := _reasons(version, rank, policy, now):
                reasons_of[version] = reasons
    return reasons_of


def _reasons(version: RetainedVersion, rank: int, policy: Policy, now: datetime) -> tuple[str, ...]:
    reasons = [f"@{alias}" for alias in version.aliases]
    reasons += [f"rollback of @{alias}" for alias in version.formerly]
    # An odd row may be an alias of this version, so the version is kept until the row is repaired.
    reasons += [f"odd row {row}" for row in version.unsure]
    if rank < policy.keep_last:
        reasons.append(f"one of the last {policy.keep_last}")
    if version.pulled_at is not None and _days(version.pulled_at, now) < policy.keep_pulled_days:
        reasons.append(f"pulled {_describe_age(version.pulled_at, now)}")
    if _days(version.published_at, now) < policy.min_age_days:
        reasons.append(f"published {_describe_age(version.published_at, now)}")
    return tuple(reasons)


def _describe_age(then: datetime, now: datetime) -> str:
    days = _days(then, now)
    if days < 0:
        return f"on {then:%Y-%m-%d}, a date in the future: a clock is wrong"
    return f"{days:.1f} days ago"


def _days(then: datetime, now: datetime) -> float:
    return (now - then).total_seconds() / DAY_S


PUBLISHED, LEASED, LINEAGE, YOUNG, INPUT = "published", "leased", "lineage", "used lately", "their inputs"
UNCLEAR = "kept for an odd or missing row"
"""Reasons to keep an artifact, as plans show them."""


def _roots(
    inventory: Inventory, versions: Iterable[RetainedVersion], leased: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Name of each artifact that is kept for its own sake -> the first reason that applies.

    A version keeps only its own content of a key; leases and lineages name keys and keep all contents.
    """
    of_key: defaultdict[str, list[RetainedVersion]] = defaultdict(list)
    for version in versions:
        of_key[version.engine_key].append(version)
    lineage_keys = {
        key
        for version in (versions if policy.lineage else ())
        for key in version.lineage
        if key != version.engine_key
    }
    roots: dict[str, str] = {}
    for name, artifact in inventory.artifacts.items():
        if any(map(artifact.may_be, of_key[artifact.base])):
            roots[name] = PUBLISHED
        elif artifact.base in leased:
            roots[name] = leased[artifact.base]
        elif artifact.base in lineage_keys:
            roots[name] = LINEAGE
        elif _is_young(artifact, policy):
            roots[name] = YOUNG
    return roots


def _by_key(artifacts: Iterable[Artifact]) -> defaultdict[str, list[Artifact]]:
    """Key -> its contents."""
    by_key: defaultdict[str, list[Artifact]] = defaultdict(list)
    for artifact in artifacts:
        by_key[artifact.base].append(artifact)
    return by_key


def _has_content(contents: Mapping[str, list[Artifact]], version: RetainedVersion) -> bool:
    """Whether one of the contents may be the version's."""
    return any(artifact.may_be(version) for artifact in contents.get(version.engine_key, ()))


def _is_young(artifact: Artifact, policy: Policy) -> bool:
    return artifact.age_s < policy.min_age_days * DAY_S


def _with_inputs(
    inventory: Inventory, roots: Mapping[str, str], leased: Collection[str], policy: Policy
) -> dict[str, str]:
    """The roots and the inputs of those whose run may go on: leased or recently used artifacts.

    The inputs of a published version are in its lineage. The trial points of a search are in no lineage, so
    that inputs have to be followed here.
    """
    artifacts, reason_of = inventory.artifacts, dict(roots)
    of_key = _by_key(artifacts.values())
    todo = [
        name for name in reason_of if artifacts[name].base in leased or _is_young(artifacts[name], policy)
    ]
    visited = set(todo)
    while todo:
        # An input is recorded by key alone, so every content of that key may be the one.
        inputs = (artifact.key for key in artifacts[todo.pop()].inputs for artifact in of_key[key])
        for name in inputs:
            if name not in visited:  # an artifact that is already kept still keeps its inputs
                reason_of.setdefault(name, INPUT)
                visited.add(name)
                todo.append(name)
    return reason_of


def _removals(
    inventory: Inventory, kept_names: Collection[str], versions: Iterable[RetainedVersion]
) -> tuple[Removal, ...]:
    """Artifacts that are not kept, largest first."""
    versions_of: defaultdict[str, list[RetainedVersion]] = defaultdict(list)
    for version in versions:
        versions_of[version.engine_key].append(version)
    removals = [
        Removal(
            key=key,
            kind=artifact.kind,
            size_bytes=sum(
                inventory.blobs[id_].size_bytes for id_ in artifact.blobs if id_ in inventory.blobs
            ),
            age_s=artifact.age_s,
            versions=tuple(
                version.reference for version in versions_of[artifact.base] if artifact.may_be(version)
            ),
        )
        for key, artifact in inventory.artifacts.items()
        if key not in kept_names
    ]
    return tuple(sorted(removals, key=lambda artifact: (-artifact.size_bytes, artifact.key)))


def _unneeded_blobs(
    inventory: Inventory, kept_names: Iterable[str], claims: Iterable[Claim], policy: Policy
) -> dict[str, Blob]:
    """Contents older than the limit that no kept artifact has and no lease names."""
    if inventory.problems:  # an unreadable manifest may list any content
        return {}
    needed = {id_ for key in kept_names for id_ in inventory.artifacts[key].blobs}
    # Contents that are being pushed: no manifest names them yet.
    needed.update(id_ for claim in claims for id_ in claim.blobs)
    return {
        id_: blob
        for id_, blob in inventory.blobs.items()
        if id_ not in needed and blob.age_s >= policy.min_age_days * DAY_S
    }


def _is_expired(litter: Litter, kept_names: Collection[str], leased: Collection[str], policy: Policy) -> bool:
    # The partial build of a leased key belongs to a build that may be running.
    kept_keys = {*map(key_of, kept_names), *leased}
    owned = any(key in kept_keys for key in litter.owners)
    return not owned and litter.age_s >= policy.litter_days * DAY_S


def _count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    counts = Counter(reasons)
    return {
        reason: counts[reason]
        for reason in (PUBLISHED, LEASED, UNCLEAR, LINEAGE, YOUNG, INPUT)
        if counts[reason]
    }


def _missing(inventory: Inventory, versions: Iterable[RetainedVersion]) -> tuple[str, ...]:
    """Kept versions whose engine the store lacks; gc reports them, it cannot help."""
    by_key = _by_key(inventory.artifacts.values())
    return tuple(
        f"{version.reference}: its engine {version.engine_key} is not in the store"
        f"{', which has another build of it' if by_key[version.engine_key] else ''}; build its recipe again"
        for version in versions
        if not _has_content(by_key, version)
    )
