"""Looks at published versions one by one: what speaks against each, and what a rebuild would take."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.version import VersionRecord
from pipeline.errors import SourceError
from pipeline.rebuild.host_pools import Pool
from pipeline.rebuild.replan import Rebuild, changed_inputs, rebuild, recipe_of, replanned
from pipeline.rebuild.stale_reasons import Reason, World, reasons, serves
from pipeline.step.realize import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A version, what speaks against it, and the way to a new one."""

    record: VersionRecord
    reasons: tuple[Reason, ...]
    rebuild: Rebuild | None
    problem: str
    """Why no rebuild could be planned here; empty where one was."""
    usd: float | None
    """What a rebuild costs at the dearest of its pools' prices; None without a price or a plan."""

    @property
    def loads(self) -> bool:
        """Whether the engine can still be loaded everywhere it is served."""
        return all(reason.loads for reason in self.reasons)


def chosen(records: Iterable[VersionRecord], *, every: bool) -> list[VersionRecord]:
    """The versions to look at: those that an alias points at and, of names without aliases, the newest."""
    held = list(records)
    if every:
        return held
    aliased = [record for record in held if record.aliases]
    names = {record.name for record in aliased}
    newest = {record.name: record for record in held if record.name not in names}
    return [*aliased, *newest.values()]


def survey(
    records: Sequence[VersionRecord], site: Site, world: World, tell: Callable[[int, int], None]
) -> list[Finding]:
    """One finding per version, those that cannot be loaded first; `tell` hears how many are done."""
    found = []
    for number, record in enumerate(records):
        found.append(look(record, site, world))
        tell(number + 1, len(records))
    return sorted(found, key=lambda one: (one.loads, not one.reasons, one.record.name, one.record.number))


def look(record: VersionRecord, site: Site, world: World) -> Finding:
    """What speaks against one version; a rebuild is planned only where something does."""
    known = reasons(record, _judged_at(record, site), world)
    try:
        loaded = recipe_of(record)
    except SourceError as exc:
        return Finding(record=record, reasons=known, rebuild=None, problem=str(exc), usd=None)
    plan = replanned(loaded, site)
    if isinstance(plan, str):
        return Finding(record=record, reasons=known, rebuild=None, problem=plan, usd=None)
    known = (*known, *changed_inputs(record, plan, site))
    newer = world.heads.get(str(record.source.get("repo")))
    if newer is not None and newer != record.source.get("revision"):
        loaded = recipe_of(record, newer)
        plan = replanned(loaded, site)
        if isinstance(plan, str):
            return Finding(record=record, reasons=known, rebuild=None, problem=plan, usd=None)
    made = rebuild(record, loaded, plan, site) if known else None
    if made is not None and not made.to_run:
        return Finding(record=record, reasons=known, rebuild=None, problem=_no_cure(known), usd=None)
    return Finding(
        record=record, reasons=known, rebuild=made, problem="", usd=_usd(made, record, world.pools)
    )


def _no_cure(known: Iterable[Reason]) -> str:
    """What to do where the recipe makes the very same engine and verdict on this host."""
    kinds = {reason.kind for reason in known}
    cures = {
        "build it on a host of its pool": kinds & {"toolchain", "driver", "hardware"},
        "give its recipe newer gate data": kinds & {"gate"},
    }
    cure = " and ".join(cure for cure, asked in cures.items() if asked)
    return f"its recipe makes the same engine and verdict here; {cure or 'change its recipe'}"


def _judged_at(record: VersionRecord, site: Site) -> datetime:
    key = record.lineage.get("evaluation")
    try:
        return site.store.manifest(key).created_at if key else record.published_at
    except (NotFound, ArtifactCorrupt):
        return record.published_at


def _usd(made: Rebuild | None, record: VersionRecord, pools: Iterable[Pool]) -> float | None:
    prices = [pool.usd_per_gpu_hour for pool in pools if pool.usd_per_gpu_hour and serves(pool, record)]
    return max(prices) * made.gpu_hours if made is not None and prices else None
