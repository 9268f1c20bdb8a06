"""Surveys published versions: why each no longer matches, and what a rebuild would take."""

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
    """A version, why it no longer matches, and its planned rebuild."""

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
    versions = list(records)
    if every:
        return versions
    aliased = [record for record in versions if record.aliases]
    names = {record.name for record in aliased}
    # versions come oldest first, so that the newest of a name stays
    newest = {record.name: record for record in versions if record.name not in names}
    return [*aliased, *newest.values()]


def survey(
    records: Sequence[VersionRecord], site: Site, world: World, tell: Callable[[int, int], None]
) -> list[Finding]:
    """One finding per version, those that cannot be loaded first; `tell` receives done and total."""
    findings = []
    for number, record in enumerate(records):
        findings.append(examine(record, site, world))
        tell(number + 1, len(records))
    return sorted(
        findings,
        key=lambda finding: (finding.loads, not finding.reasons, finding.record.name, finding.record.number),
    )


def examine(record: VersionRecord, site: Site, world: World) -> Finding:
    """The finding of one version; a rebuild is planned only for a stale one."""
    # before any planning: these reasons hold also where no plan can be made
    why_stale = reasons(record, _judged_at(record, site), world)
    try:
        loaded = recipe_of(record)
    except SourceError as exc:
        return Finding(record=record, reasons=why_stale, rebuild=None, problem=str(exc), usd=None)
    plan = replanned(loaded, site)
    if isinstance(plan, str):
        return Finding(record=record, reasons=why_stale, rebuild=None, problem=plan, usd=None)
    # at the version's own commit, so that a newer model is not told as a changed input
    why_stale = (*why_stale, *changed_inputs(record, plan, site))
    newer = world.heads.get(str(record.source.get("repo")))
    if newer is not None and newer != record.source.get("revision"):
        # a rebuild is planned for the newest commit: of the old one there is an engine already
        loaded = recipe_of(record, newer)
        plan = replanned(loaded, site)
        if isinstance(plan, str):
            return Finding(record=record, reasons=why_stale, rebuild=None, problem=plan, usd=None)
    new_build = rebuild(record, loaded, plan, site) if why_stale else None
    # everything is cached: a rebuild would publish the same version again
    if new_build is not None and not new_build.to_run:
        return Finding(record=record, reasons=why_stale, rebuild=None, problem=_no_cure(why_stale), usd=None)
    return Finding(
        record=record,
        reasons=why_stale,
        rebuild=new_build,
        problem="",
        usd=_usd(new_build, record, world.pools),
    )


def _no_cure(why_stale: Iterable[Reason]) -> str:
    """What to do where the recipe makes the very same engine and verdict on this host."""
    kinds = {reason.kind for reason in why_stale}
    cures = {
        "build it on a host of its pool": kinds & {"toolchain", "driver", "hardware"},
        "give its recipe newer gate data": kinds & {"gate"},
    }
    cure = " and ".join(cure for cure, applicable in cures.items() if applicable)
    return f"its recipe makes the same engine and verdict here; {cure or 'change its recipe'}"


def _judged_at(record: VersionRecord, site: Site) -> datetime:
    key = record.lineage.get("evaluation")
    try:
        return site.store.manifest(key).created_at if key else record.published_at
    except (NotFound, ArtifactCorrupt):
        # collected or damaged: the version was published after it was judged, so this is close
        return record.published_at


def _usd(new_build: Rebuild | None, record: VersionRecord, pools: Iterable[Pool]) -> float | None:
    prices = [pool.usd_per_gpu_hour for pool in pools if pool.usd_per_gpu_hour and serves(pool, record)]
    return max(prices) * new_build.gpu_hours if new_build is not None and prices else None
