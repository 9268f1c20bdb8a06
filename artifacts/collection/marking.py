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
            "versions": [asdict(one) for one in self.versions],
            "collected": [one.reference for one in self.collected],
            "removed": [asdict(one) for one in self.removed],
            "blobs": len(self.blobs),
            "litter": [
                {"place": one.place, "size_bytes": one.size_bytes, "owners": list(one.owners)}
                for one in self.litter
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
    wanted = retained(versions, policy, now)
    leased = {
        key_of(key): UNCLEAR if claim.what == UNCLEAR else LEASED for claim in claims for key in claim.keys
    }
    kept = _closed(inventory, _roots(inventory, wanted, leased, policy), leased, policy)
    stays = _by_key(inventory.artifacts[name] for name in kept)
    going = [one for one in versions if one not in wanted and not _among(stays, one)]
    collected = tuple(one for one in going if not one.collected)
    blobs = _unneeded(inventory, kept, claims, policy)
    litter = tuple(one for one in inventory.litter if _is_over(one, kept, leased, policy))
    freed = sum(blob.size_bytes for blob in blobs.values() if not blob.strangers)
    return Plan(
        policy=policy,
        versions=tuple(
            Kept(reference=one.reference, engine_key=one.engine_key, reasons=reasons)
            for one, reasons in wanted.items()
        ),
        collected=collected,
        removed=_removals(inventory, kept, going),
        blobs=blobs,
        litter=litter,
        kept=_counted(kept.values()),
        freed_bytes=freed + sum(one.size_bytes for one in litter),
        kept_bytes=sum(blob.size_bytes for blob in inventory.blobs.values()) - freed,
        problems=(*inventory.problems, *_missing(inventory, wanted)),
    )


def retained(versions: Iterable[Known], policy: Policy, now: datetime) -> dict[Known, tuple[str, ...]]:
    """Versions to keep -> why; a version whose bytes were collected before is not among them."""
    of_name: defaultdict[str, list[Known]] = defaultdict(list)
    for version in versions:
        if not version.collected:
            of_name[version.name].append(version)
    found = {}
    for name in sorted(of_name):
        ranked = sorted(of_name[name], key=lambda one: -one.number)
        for rank, version in enumerate(ranked):
            if reasons := _reasons(version, rank, policy, now):
                found[version] = reasons
    return found


def _reasons(version: Known, rank: int, policy: Policy, now: datetime) -> tuple[str, ...]:
    found = [f"@{alias}" for alias in version.aliases]
    found += [f"rollback of @{alias}" for alias in version.formerly]
    found += [f"odd row {what}" for what in version.unsure]
    if rank < policy.keep_last:
        found.append(f"one of the last {policy.keep_last}")
    if version.pulled_at is not None and _days(version.pulled_at, now) < policy.keep_pulled_days:
        found.append(f"pulled {_said(version.pulled_at, now)}")
    if _days(version.published_at, now) < policy.min_age_days:
        found.append(f"published {_said(version.published_at, now)}")
    return tuple(found)


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
    inventory: Inventory, wanted: Iterable[Known], leased: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Name of each artifact that is kept for itself -> why; the first reason counts.

    A version keeps its own content of its key and no other; leases and lineages know keys only.
    """
    of_key: defaultdict[str, list[Known]] = defaultdict(list)
    for version in wanted:
        of_key[version.engine_key].append(version)
    made_from = {
        key
        for version in (wanted if policy.lineage else ())
        for key in version.lineage
        if key != version.engine_key
    }
    roots: dict[str, str] = {}
    for name, artifact in inventory.artifacts.items():
        if any(map(artifact.may_be, of_key[artifact.base])):
            roots[name] = PUBLISHED
        elif artifact.base in leased:
            roots[name] = leased[artifact.base]
        elif artifact.base in made_from:
            roots[name] = LINEAGE
        elif _is_young(artifact, policy):
            roots[name] = YOUNG
    return roots


def _by_key(artifacts: Iterable[Artifact]) -> defaultdict[str, list[Artifact]]:
    """Key -> its contents."""
    found: defaultdict[str, list[Artifact]] = defaultdict(list)
    for artifact in artifacts:
        found[artifact.base].append(artifact)
    return found


def _among(contents: Mapping[str, list[Artifact]], version: Known) -> bool:
    """Whether one of the artifacts is what the version names."""
    return any(one.may_be(version) for one in contents.get(version.engine_key, ()))


def _is_young(artifact: Artifact, policy: Policy) -> bool:
    return artifact.age_s < policy.min_age_days * DAY_S


def _closed(
    inventory: Inventory, roots: Mapping[str, str], leased: Collection[str], policy: Policy
) -> dict[str, str]:
    """The roots that are there, and what those were made from whose run may not have ended: leased or young.

    A version's lineage names its artifacts itself; the other points of a search are inputs and not in it.
    """
    held, kept = inventory.artifacts, dict(roots)
    of_key = _by_key(held.values())
    todo = [name for name in kept if held[name].base in leased or _is_young(held[name], policy)]
    seen = set(todo)
    while todo:
        inputs = (one.key for key in held[todo.pop()].inputs for one in of_key[key])
        for name in inputs:
            if name not in seen:  # one that is kept anyway brings its own inputs too
                kept.setdefault(name, INPUT)
                seen.add(name)
                todo.append(name)
    return kept


def _removals(inventory: Inventory, kept: Collection[str], going: Iterable[Known]) -> tuple[Removal, ...]:
    """What is not kept, largest first."""
    named: defaultdict[str, list[Known]] = defaultdict(list)
    for version in going:
        named[version.engine_key].append(version)
    found = [
        Removal(
            key=key,
            kind=one.kind,
            size_bytes=sum(inventory.blobs[id_].size_bytes for id_ in one.blobs if id_ in inventory.blobs),
            age_s=one.age_s,
            versions=tuple(version.reference for version in named[one.base] if one.may_be(version)),
        )
        for key, one in inventory.artifacts.items()
        if key not in kept
    ]
    return tuple(sorted(found, key=lambda one: (-one.size_bytes, one.key)))


def _unneeded(
    inventory: Inventory, kept: Iterable[str], claims: Iterable[Claim], policy: Policy
) -> dict[str, Blob]:
    """Contents that no kept artifact has and no lease names, and that are old enough."""
    if inventory.problems:
        return {}
    needed = {id_ for key in kept for id_ in inventory.artifacts[key].blobs}
    needed.update(id_ for claim in claims for id_ in claim.blobs)
    return {
        id_: blob
        for id_, blob in inventory.blobs.items()
        if id_ not in needed and blob.age_s >= policy.min_age_days * DAY_S
    }


def _is_over(litter: Litter, kept: Collection[str], leased: Collection[str], policy: Policy) -> bool:
    stays = {*map(key_of, kept), *leased}
    owned = any(key in stays for key in litter.owners)
    return not owned and litter.age_s >= policy.litter_days * DAY_S


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    counts = Counter(reasons)
    return {why: counts[why] for why in (PUBLISHED, LEASED, UNCLEAR, LINEAGE, YOUNG, INPUT) if counts[why]}


def _missing(inventory: Inventory, wanted: Iterable[Known]) -> tuple[str, ...]:
    """Kept versions whose engine is not there: nothing that gc does, but somebody will miss it."""
    of_key = _by_key(inventory.artifacts.values())
    return tuple(
        f"{one.reference}: its engine {one.engine_key} is not in the store"
        f"{', which has another build of it' if of_key[one.engine_key] else ''}; build its recipe again"
        for one in wanted
        if not _among(of_key, one)
    )
