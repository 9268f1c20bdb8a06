"""From a passed gate to a registered version: lineage, metrics and what the engine needs to load."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from artifacts.manifest import Manifest
from artifacts.registry.registry import Binding, Metric, Publication, Registry
from artifacts.trust.licence import licence_of
from pipeline.drafting.modes import WITH_DRAFT
from pipeline.evaluate.gate import Estimate, Verdict
from pipeline.plan.plan import Plan
from pipeline.step.realize import Site, find_address

WITHOUT_DRAFTS = "without drafts"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and all the metrics that were estimated, limited or not."""

    verdict: Verdict
    estimates: Mapping[str, Estimate]


def publish(plan: Plan, site: Site, registry: Registry, judged: Judgement) -> int:
    """Registers the engine and moves its alias; the same engine and recipe again is the same version."""
    return registry.publish(
        Publication(
            name=plan.recipe.name,
            alias=plan.recipe.publish.alias,
            engine_key=plan.step("engine").key,
            manifest_digest=site.store.manifest(plan.step("engine").key).digest,
            model=str(plan.recipe.model.repo or plan.recipe.model.path),
            source={**origin(plan), **licences(plan, site)},
            recipe=plan.recipe.model_dump(mode="json", exclude_none=True, by_alias=True),
            lineage=lineage(plan),
            verdict=judged.verdict.outcome,
            checks=judged.verdict.rows(),
            metrics=metrics(plan, site, judged),
            facts={**compatibility(plan, site), **_apart(plan, judged)},
        ),
        store=Binding(site.store.id, site.store.url),
    )


def origin(plan: Plan) -> dict[str, Any]:
    """Where the source checkpoint came from, and the recipe's file, whose relative paths start there."""
    model = plan.recipe.model
    place = {"repo": model.repo, "revision": model.revision} if model.repo else {"path": str(model.path)}
    return {**place, "file": str(plan.file.resolve())}


def licences(plan: Plan, site: Site) -> dict[str, Any]:
    """The licence of every checkpoint in the engine: `licence`, `draft_licence`, `heads_licence`."""
    store = site.store
    return {
        # the main model has no role, so that its field would begin with the underscore
        f"{step.role}_licence".removeprefix("_"): licence_of(
            store.manifest(step.key), partial(store.file, step.key)
        )
        for step in plan.steps
        if step.kind == "source"
    }


def lineage(plan: Plan) -> dict[str, str]:
    """Every step's key by its name; several of one name are numbered, the first is not."""
    keys: dict[str, str] = {}
    for step in plan.steps:
        # a name may have got a number already: compared without it
        number = sum(name.partition(":")[0] == step.name for name in keys) + 1
        keys[step.name if number == 1 else f"{step.name}:{number}"] = step.key
    return keys


def metrics(plan: Plan, site: Site, judged: Judgement) -> list[Metric]:
    """Every number that is registered with a version: accuracy with intervals, speed, size."""
    engine = site.store.manifest(plan.step("engine").key)
    step = plan.step("measurement")
    # a step that was made under another address is read where it is
    timed = site.store.file(find_address(step, site) or step.key, "measurement.json")
    measured = json.loads(timed.read_text())
    return [*_accuracy(judged), *_speed(measured), *_size(engine, judged.verdict.scored)]


def compatibility(plan: Plan, site: Site) -> dict[str, Any]:
    """What a host must have to load the engine, and the limits it was built for, as read back from it."""
    return {
        **described(json.loads(site.store.file(plan.step("engine").key, "engine.json").read_text())),
        "target": plan.recipe.engine.target,
        "gpus": [{"name": gpu.name, "sm": gpu.sm, "driver": gpu.driver} for gpu in site.host.gpus],
    }


def described(built: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine's own description says of hosts and limits."""
    fields = (
        "backend",
        "format",
        "dtype",
        "kv_cache",
        "tp",
        "pp",
        "world_size",
        "max_batch_size",
        "max_seq_len",
    )
    return {
        **{name: built[name] for name in fields},
        "device": built["device"],
        "toolchain": built["toolchain"],
        "cpu": built["toolchain"].get("cpu"),
        "sm": built.get("sm"),
        "weight_bytes_per_rank": per_rank(built["weight_bytes"]),
        "memory_bytes_per_rank": built["memory_bytes_per_rank"],
    }


def per_rank(weight_bytes: Mapping[str, int]) -> list[int]:
    """Bytes of each weight file, with those of the draft model's file of the same name."""
    names = dict.fromkeys(Path(name).name for name in weight_bytes)  # not a set: ranks keep their order
    return [sum(size for file, size in weight_bytes.items() if Path(file).name == name) for name in names]


def _apart(plan: Plan, judged: Judgement) -> dict[str, str]:
    """What was scored, after which tokens, and what was measured otherwise than it is served.

    A built engine and its draft meet in the server: here the engine is timed alone.
    """
    verdict, speculative = judged.verdict, plan.recipe.speculative
    alone = speculative is not None and speculative.mode == WITH_DRAFT and verdict.scored
    marks = {
        "scored": verdict.scored,
        "sequences_begin_with": verdict.begin,
        "measured": WITHOUT_DRAFTS if alone else "",
    }
    return {name: value for name, value in marks.items() if value}


def _accuracy(judged: Judgement) -> list[Metric]:
    return [
        Metric(name, estimate.value, estimate.low, estimate.high)
        for name, estimate in judged.estimates.items()
    ]


def _speed(measured: dict[str, Any]) -> list[Metric]:
    """Speed at the largest measured batch under plain names, every batch under `name@batch`."""
    rows = measured["rows"]
    names = (
        "tokens_per_s",
        "tokens_per_s_per_user",
        "ttft_ms_p50",
        "ttft_ms_p95",
        "itl_ms_p50",
        "itl_ms_p95",
    )
    every = [Metric(f"{name}@{row['batch_size']}", row[name]) for row in rows for name in names]
    return [*(Metric(name, rows[-1][name]) for name in names), *every]


def _size(engine: Manifest, scored: str) -> list[Metric]:
    """What is served; a twin that is only scored counts by itself."""
    if not scored:
        return [Metric("size_bytes", float(engine.size_bytes))]
    # a twin is in the artifact for the gate alone; no server loads it
    twin = sum(file.size for name, file in engine.files.items() if name.startswith(f"{scored}/"))
    return [Metric("size_bytes", float(engine.size_bytes - twin)), Metric("scoring_bytes", float(twin))]
