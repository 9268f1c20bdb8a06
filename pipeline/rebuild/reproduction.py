"""Builds a published version again from its recipe, and compares it file by file."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from artifacts.address import key_of
from artifacts.manifest import Manifest
from artifacts.store.local import LocalStore
from artifacts.version import IMPORTED, VersionRecord
from pipeline.child.kinds import of_0_1
from pipeline.errors import ExchangeRefused
from pipeline.plan.plan import Plan
from pipeline.rebuild import file_differences
from pipeline.rebuild.file_differences import Difference
from pipeline.rebuild.step_differences import is_same, otherwise
from pipeline.run.publish import lineage
from pipeline.run.release import try_points
from pipeline.step.realize import Listener, Made, Site, realize
from pipeline.step.step import Step
from recipes.load import Loaded
from recipes.schema import Recipe

GIVEN = ("source", "dataset")
"""Kinds of steps that take what is outside; other bytes there are another model or other data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the version, built again."""

    kind: str
    was: str
    """Key of the published artifact."""
    key: str
    asked: tuple[str, ...]
    """Parameters that differ from the published step's, e.g. another tool; inputs are steps of their own."""
    identical: int
    """Files that are the same, byte for byte."""
    differences: tuple[Difference, ...]
    rekeyed: bool = False
    """Enginery 0.1 made the published artifact, so that its key is another one in any case."""
    missing: bool = False
    """The published artifact is gone from the store, so that there is nothing to compare with."""

    @property
    def same(self) -> bool:
        """Whether every file is as published, but for caches and timings."""
        return not self.missing and all(
            difference.why == file_differences.TUNING for difference in self.differences
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The comparison of a rebuild with the published version."""

    reference: str
    stages: tuple[Stage, ...]
    """In the order of the build; the engine is the last."""

    @property
    def outcome(self) -> str:
        """`identical`, `equivalent` (same weights; code or notes differ), or `different`."""
        engine = self.stages[-1]
        if engine.same:
            return "identical"
        checkpoints = [stage for stage in self.stages if "checkpoint" in stage.kind]
        # without checkpoints to compare, other code may hide other weights
        unsure = not checkpoints or any(stage.missing for stage in checkpoints)
        weights = any(
            difference.why == file_differences.WEIGHTS
            for stage in checkpoints
            for difference in stage.differences
        )
        if weights or any(
            difference.matters or (unsure and difference.why == file_differences.CODE)
            for difference in engine.differences
        ):
            return "different"
        return "equivalent"

    def as_dict(self) -> dict[str, Any]:
        """The reproduction as JSON values."""
        return {
            "reference": self.reference,
            "outcome": self.outcome,
            "stages": [asdict(s) for s in self.stages],
        }


def recipe_of(record: VersionRecord, base: Path) -> Loaded:
    """The version's recipe, whose relative paths start at `base`; ExchangeRefused where it has none."""
    if record.origin == IMPORTED:
        raise ExchangeRefused(
            f"{record.reference} was imported, and its recipe did not come along; "
            "rebuild it where it was built"
        )
    # a rebuild runs now; when the recipe runs is no part of what it makes
    built = {key: value for key, value in record.recipe.items() if key != "schedule"}
    try:
        recipe = Recipe.model_validate_json(json.dumps(built))
    except ValidationError as exc:
        problem = exc.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ExchangeRefused(
            f"{record.reference}: its recipe is not one of this version ({place}: {problem['msg']}); "
            "use the version of enginery that published it"
        ) from None
    # only the directory of this file counts: relative paths start there
    return Loaded(recipe, base / f"{record.name.rpartition('/')[2]}.yaml")


def rebuild(plan: Plan, site: Site, listener: Listener) -> list[Made]:
    """Builds the engine and what it is made of, measuring only what its tuning needs."""

    def make(step: Step) -> Made:
        return realize(step, site, listener)

    needed = _closure(plan)
    return [
        make(try_points(step, plan.trials, make) if step.kind == "engine" else step)
        for step in plan.steps
        if step.key in needed
    ]


def _closure(plan: Plan) -> set[str]:
    """Keys of the engine and of everything that goes into it."""
    steps = {step.key: step for step in plan.all_steps}
    keys, open_ = set(), [plan.step("engine").key]
    while open_:
        key = open_.pop()
        if key in steps and key not in keys:
            keys.add(key)
            open_ += steps[key].inputs.values()
    return keys


def compare(record: VersionRecord, plan: Plan, published: LocalStore, rebuilt: LocalStore) -> Reproduction:
    """Compares every artifact that was built again with the published one of its name."""
    # a rebuild leaves out what only measures
    now = {name: key for name, key in lineage(plan).items() if rebuilt.has(key)}
    steps = {step.key: step for step in plan.steps}
    stages = [
        _stage(name, _published(record, name), steps[key], published, rebuilt)
        for name, key in now.items()
        if name in record.lineage
    ]
    # put last, where `outcome` reads it
    engine = next(stage for stage in stages if stage.kind == "engine")
    return Reproduction(
        reference=record.reference, stages=(*(other for other in stages if other is not engine), engine)
    )


def _published(record: VersionRecord, name: str) -> str:
    """What the store calls the artifact of that name: of the engine, the very content that was published."""
    key = record.lineage[name]
    return record.address if key == record.engine_key else key


def _stage(name: str, was: str, step: Step, published: LocalStore, rebuilt: LocalStore) -> Stage:
    rebuilt_manifest = rebuilt.manifest(step.key)
    stage = Stage(
        kind=name, was=key_of(was), key=step.key, asked=(), identical=0, differences=(), missing=True
    )
    if not published.has(was):
        # the key alone proves that the same was asked for, even where nothing is left to compare
        if is_same(stage.was, step):
            return replace(stage, rekeyed=stage.was != step.key)
        return replace(stage, asked=("its key, and the artifact is gone",))
    manifest = published.manifest(was)
    identical, differences = _files(manifest, rebuilt_manifest, published, rebuilt)
    return replace(
        stage,
        asked=tuple(otherwise(manifest.step, step)),
        identical=identical,
        differences=tuple(differences),
        rekeyed=of_0_1(manifest.step),
        missing=False,
    )


def _files(
    manifest: Manifest, rebuilt_manifest: Manifest, published: LocalStore, rebuilt: LocalStore
) -> tuple[int, list[Difference]]:
    """How many files are the same, and what is different in each of the others."""
    names = sorted({*manifest.files, *rebuilt_manifest.files})
    differing = [name for name in names if manifest.files.get(name) != rebuilt_manifest.files.get(name)]
    was, is_ = published.directory(manifest.address), rebuilt.directory(rebuilt_manifest.key)
    return len(names) - len(differing), [
        file_differences.file(manifest.kind, name, was / name, is_ / name) for name in differing
    ]


def changed_sources(record: VersionRecord, plan: Plan) -> list[str]:
    """Which of the sources that the plan would read are not those of the version."""
    steps = {step.key: step for step in plan.steps}
    now = {name: steps[key] for name, key in lineage(plan).items()}
    return [
        name
        for name, was in record.lineage.items()
        if name in now and now[name].kind in GIVEN and not is_same(was, now[name])
    ]
