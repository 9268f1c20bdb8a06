"""What building a published version again would take: its recipe of today, steps to run, their cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.version import IMPORTED, VersionRecord
from pipeline.child.kinds import of_0_1
from pipeline.errors import BackendUnavailable, SourceError
from pipeline.plan.plan import Plan
from pipeline.plan.planning import pending, plan_one
from pipeline.rebuild.stale_reasons import Reason, on_cpu
from pipeline.rebuild.step_differences import comparable, is_same
from pipeline.run.publish import lineage
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from recipes.load import Loaded
from recipes.schema import Recipe

GPU_STEPS = ("statistics", "engine", "measurement", "evaluation", "baseline")
"""Kinds of steps that occupy GPUs, where the engine is for one; the others copy files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """A plan to build a version again."""

    loaded: Loaded
    plan: Plan
    to_run: Mapping[str, float | None]
    """Name of each step that is not in the store -> seconds that it took for the published version."""
    gpus: int
    """GPUs that its ranks occupy; 0 on CPUs."""

    @property
    def seconds(self) -> float:
        """Time of the steps whose time is known."""
        return sum(seconds or 0.0 for seconds in self.to_run.values())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Steps that were never timed."""
        return tuple(name for name, seconds in self.to_run.items() if seconds is None)

    @property
    def gpu_hours(self) -> float:
        """Time of the known steps that occupy GPUs, times their number."""
        # a draft's steps occupy GPUs as the engine's own do
        busy = [s or 0.0 for name, s in self.to_run.items() if name.removeprefix("draft_") in GPU_STEPS]
        return sum(busy) * self.gpus / 3600


def recipe_of(record: VersionRecord, revision: str | None = None) -> Loaded:
    """The version's recipe where it was when it was run, at another commit of its model if one is given.

    A SourceError where the registry does not know where that was, it is not on this host, or today's checks
    refuse it.
    """
    if record.origin == IMPORTED:
        raise SourceError(f"{record.reference} was built elsewhere; build it there and import it again")
    file = record.source.get("file")
    if file is None:
        raise SourceError(f"{record.reference} does not say where its recipe was; run its recipe once more")
    # the directory alone: the registry has the recipe itself, and its paths start there
    if not Path(file).parent.is_dir():
        raise SourceError(
            f"{record.reference} was run from {file}, which is not on this host; run this where it is"
        )
    document = dict(record.recipe)
    if revision is not None:
        document["model"] = {**document["model"], "revision": revision}
    try:
        return Loaded(Recipe.model_validate(document), Path(file))
    except ValidationError as exc:
        problem = exc.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise SourceError(
            f"{record.reference}: its recipe is no longer valid ({place}: {problem['msg']})"
        ) from None


def replanned(loaded: Loaded, site: Site) -> Plan | str:
    """The plan of today, or why this host cannot make one."""
    try:
        return plan_one(loaded, site)
    except (RecipeError, BackendUnavailable, SourceError) as exc:
        # text, not an exception: the survey goes on with the other versions
        return str(exc)


def rebuild(record: VersionRecord, loaded: Loaded, plan: Plan, site: Site) -> Rebuild:
    """What would run, and how long it took the last time."""
    # by key: lineage numbers the steps that share a name
    names = {key: name for name, key in lineage(plan).items()}
    to_run = {
        names.get(step.key, step.name): _seconds(record.lineage.get(names.get(step.key, step.name)), site)
        for step in pending(plan, site)
    }
    engine = plan.recipe.engine
    gpus = 0 if on_cpu(record) else engine.tp * engine.pp
    return Rebuild(loaded=loaded, plan=plan, to_run=to_run, gpus=gpus)


def _seconds(key: str | None, site: Site) -> float | None:
    try:
        return None if key is None else site.store.manifest(key).seconds
    except (NotFound, ArtifactCorrupt):
        return None


def changed_inputs(record: VersionRecord, plan: Plan, site: Site) -> tuple[Reason, ...]:
    """The first step that would come out differently today and what of it changed; none where none would."""
    steps = {step.key: step for step in plan.steps}
    rekeyed = of_0_1(_published(record.address, site))
    for name, key in lineage(plan).items():
        was = record.lineage.get(name)
        if was is not None and is_same(was, steps[key]):
            continue
        before = _published(was, site)
        then, now = comparable(before, steps[key])
        if rekeyed and (not before or then == now):  # its key says nothing: keys are made otherwise since 0.1
            continue
        changes = list(differences(then["params"], now["params"])) if before else []
        # the keys differ, so where no parameter does, an input or the code's revision must
        summary = "; ".join(changes[:4]) or "its inputs or our own code of it changed"
        return (Reason("inputs", f"today's plan makes another {name}: {summary}"),)
    return ()


def _published(key: str | None, site: Site) -> Mapping[str, Any]:
    """The step of an artifact's manifest; empty where the store has it no longer."""
    try:
        return site.store.manifest(key).step if key else {}
    except (NotFound, ArtifactCorrupt):
        return {}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """`dotted.key: old -> new` of every leaf that differs."""
    for key in sorted({*before, *after}):
        old, new, dotted = before.get(key), after.get(key), f"{at}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{dotted}.")
        elif old != new:
            yield f"{dotted}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
