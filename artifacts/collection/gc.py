"""What a store can do without: pure, from what it holds, what the registry says and who leases what."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from artifacts.address import key_of
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter
from artifacts.registry.retention import Known
from artifacts.store.claim import Claim

DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is kept beside what aliases point at, what a rollback leads to and what is leased."""

    keep_last: int = 3
    """Newest versions of every name."""
    keep_pulled_days: float = 30.0
    """Versions that were pulled since."""
    min_age_days: float = 7.0
    """Versions published, and artifacts and files used, since: finished steps of an interrupted run."""
    litter_days: float = 14.0
    """Partial builds, quarantined artifacts, logs and caches of downloads and tuning, used since."""
    lineage: bool = True
    """Whether what kept versions were made from and measured by is kept too."""

    def __post_init__(self) -> None:
        numbers = (self.keep_last, self.keep_pulled_days, self.min_age_days, self.litter_days)
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
    """An artifact that goes."""

    key: str
    kind: str
    size_bytes: int
    """All of its files, those that others share too."""
    age_s: float
    """Since it was used last."""
    versions: tuple[str, ...]
    """Versions that are collected with it; none of an artifact that no version names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a collection removes, and what it keeps for whom."""

    policy: Policy
    versions: tuple[Kept, ...]
    collected: tuple[Known, ...]
    """Versions whose engine goes or is already gone."""
    removed: tuple[Removal, ...]
    blobs: Mapping[str, Blob]
    """Contents, by id, that nobody needs any more."""
    litter: tuple[Litter, ...]
    kept: Mapping[str, int]
    """Why -> number of artifacts that stay for that reason first."""
    freed_bytes: int
    """What the disk gains: shared bytes count once, and only if nobody who shares them stays."""
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
    inventory: Inventory, versions: Iterable[Known], claims: Iterable[Claim], policy: Policy, now: datetime
) -> Plan:
    """Decide what goes; `now` is when, by the clock that dated the versions."""
    claims, versions = list(claims), list(versions)
    retained_versions = retained(versions, policy, now)
    leased = {
        key_of(key): UNCLEAR if claim.what == UNCLEAR else LEASED for claim in claims for key in claim.keys
    }
    reason_of = _closed(inventory, _roots(inventory, retained_versions, leased, policy), leased, policy)
    kept_by_key = _by_key(inventory.artifacts[name] for name in reason_of)
    removed_versions = [
        version
        for version in versions
        if version not in retained_versions and not _among(kept_by_key, version)
    ]
    collected = tuple(version for version in removed_versions if not version.collected)
    blobs = _unneeded(inventory, reason_of, claims, policy)
    litter = tuple(version for version in inventory.litter if _is_over(version, reason_of, leased, policy))
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
        kept=_counted(reason_of.values()),
        freed_bytes=freed_blob_bytes + sum(version.size_bytes for version in litter),
        kept_bytes=sum(blob.size_bytes for blob in inventory.blobs.values()) - freed_blob_bytes,
        problems=(*inventory.problems, *_missing(inventory, retained_versions)),
    )


def retained(versions: Iterable[Known], policy: Policy, now: datetime) -> dict[Known, tuple[str, ...]]:
    """Versions to keep -> why; a version whose bytes were collected before is not among them."""
    of_name: defaultdict[str, list[Known]] = defaultdict(list)
    for version in versions:
        if not version.collected:
            of_name[version.name].append(version)
    reasons_of = {}
    for name in sorted(of_name):
        ranked = sorted(of_name[name], key=lambda item: -item.number)
        for rank, version in enumerate(ranked):
            if reasons := _reasons(version, rank, policy, now):
                reasons_of[version] = reasons
    return reasons_of


def _reasons(version: Known, rank: int, policy: Policy, now: datetime) -> tuple[str, ...]:
    reasons = [f"@{alias}" for alias in version.aliases]
    reasons += [f"rollback of @{alias}" for alias in version.formerly]
    reasons += [f"odd row {row}" for row in version.unsure]
    if rank < policy.keep_last:
        reasons.append(f"one of the last {policy.keep_last}")
    if version.pulled_at is not None and _days(version.pulled_at, now) < policy.keep_pulled_days:
        reasons.append(f"pulled {_said(version.pulled_at, now)}")
    if _days(version.published_at, now) < policy.min_age_days:
        reasons.append(f"published {_said(version.published_at, now)}")
    return tuple(reasons)


def _said(then: datetime, now: datetime) -> str:
    days = _days(then, now)
    if days < 0:
        return f"on {then:%Y-%m-%d}, which is still to come: a clock is wrong"
    return f"{days:.1f} days ago"


def _days(then: datetime, now: datetime) -> float:
    return (now - then).total_seconds() / DAY_S


PUBLISHED, LEASED, LINEAGE, YOUNG, INPUT = "published", "leased", "lineage", "used lately", "their inputs"
UNCLEAR = "kept for an odd or missing row"
"""Why an artifact stays."""


def _roots(
    inventory: Inventory, versions: Iterable[Known], leased: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Name of each artifact that is kept for itself -> why; the first reason counts.

    A version keeps its own content of its key and no other; leases and lineages know keys only.
    """
    of_key: defaultdict[str, list[Known]] = defaultdict(list)
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


def _among(contents: Mapping[str, list[Artifact]], version: Known) -> bool:
    """Whether one of the artifacts is what the version names."""
    return any(artifact.may_be(version) for artifact in contents.get(version.engine_key, ()))


def _is_young(artifact: Artifact, policy: Policy) -> bool:
    return artifact.age_s < policy.min_age_days * DAY_S


def _closed(
    inventory: Inventory, roots: Mapping[str, str], leased: Collection[str], policy: Policy
) -> dict[str, str]:
    """The roots that are there, and what those were made from whose run may not have ended: leased or young.

    A version's lineage names its artifacts itself; the other points of a search are inputs and not in it.
    """
    artifacts, reason_of = inventory.artifacts, dict(roots)
    of_key = _by_key(artifacts.values())
    todo = [
        name for name in reason_of if artifacts[name].base in leased or _is_young(artifacts[name], policy)
    ]
    visited = set(todo)
    while todo:
        inputs = (artifact.key for key in artifacts[todo.pop()].inputs for artifact in of_key[key])
        for name in inputs:
            if name not in visited:  # one that is kept anyway brings its own inputs too
                reason_of.setdefault(name, INPUT)
                visited.add(name)
                todo.append(name)
    return reason_of


def _removals(
    inventory: Inventory, kept_names: Collection[str], versions: Iterable[Known]
) -> tuple[Removal, ...]:
    """What is not kept, largest first."""
    versions_of: defaultdict[str, list[Known]] = defaultdict(list)
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


def _unneeded(
    inventory: Inventory, kept_names: Iterable[str], claims: Iterable[Claim], policy: Policy
) -> dict[str, Blob]:
    """Contents that no kept artifact has and no lease names, and that are old enough."""
    if inventory.problems:
        return {}
    needed = {id_ for key in kept_names for id_ in inventory.artifacts[key].blobs}
    needed.update(id_ for claim in claims for id_ in claim.blobs)
    return {
        id_: blob
        for id_, blob in inventory.blobs.items()
        if id_ not in needed and blob.age_s >= policy.min_age_days * DAY_S
    }


def _is_over(litter: Litter, kept_names: Collection[str], leased: Collection[str], policy: Policy) -> bool:
    kept_keys = {*map(key_of, kept_names), *leased}
    owned = any(key in kept_keys for key in litter.owners)
    return not owned and litter.age_s >= policy.litter_days * DAY_S


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    counts = Counter(reasons)
    return {
        reason: counts[reason]
        for reason in (PUBLISHED, LEASED, UNCLEAR, LINEAGE, YOUNG, INPUT)
        if counts[reason]
    }


def _missing(inventory: Inventory, versions: Iterable[Known]) -> tuple[str, ...]:
    """Kept versions whose engine is not there: nothing that gc does, but somebody will miss it."""
    by_key = _by_key(inventory.artifacts.values())
    return tuple(
        f"{version.reference}: its engine {version.engine_key} is not in the store"
        f"{', which has another build of it' if by_key[version.engine_key] else ''}; build its recipe again"
        for version in versions
        if not _among(by_key, version)
    )
