"""Runs a plan: every step, the gate, publication. Prefect and the command line both come through here."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from artifacts.collection import registries
from artifacts.registry.registry import Registry
from pipeline.errors import BuildFailed
from pipeline.evaluate import gate
from pipeline.plan.plan import Plan, Trial
from pipeline.run import publish
from pipeline.run.publish import Judgement
from pipeline.step.realize import Made, Site, find_address, is_cached
from pipeline.step.step import Step
from pipeline.step.step_parameters import TunedPlaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    name: str
    version: int
    alias: str
    engine_key: str
    judged: Judgement
    made: tuple[Made, ...]


MakeStep = Callable[[Step], Made]
"""Makes one step's artifact exist: directly, or as a Prefect task."""


def run_plan(plan: Plan, site: Site, registry: Registry, make: MakeStep) -> Outcome:
    """Builds, gates and publishes what the plan describes; a verdict other than PASS publishes nothing.

    What it finds and what it makes is leased from here until it is published.
    """
    # from the first look, or gc could take a cached step between finding and reading it
    with site.store.lease(keys(plan), f"the run of {plan.recipe.name}") as lease:
        registries.remember(site.store, registry.url)
        made = []
        for step in plan.steps:
            # a cached engine was chosen already; its trials would be built for nothing
            search = step.kind == "engine" and plan.trials and not is_cached(step, site)
            made.append(make(try_points(step, plan.trials, make) if search else step))
        judged = judge(plan, site)
        # raises: nothing below happens for a refused engine, its artifacts stay as a cache
        judged.verdict.require()
        lease.require()  # else a sweep may have taken what is about to be named
        version = publish.publish(plan, site, registry, judged)
    registries.remember_own(site.store, registry.url)
    return Outcome(
        name=plan.recipe.name,
        version=version,
        alias=plan.recipe.publish.alias,
        engine_key=plan.step("engine").key,
        judged=judged,
        made=tuple(made),
    )


def keys(plan: Plan) -> list[str]:
    """Every artifact that a run may find, make or read."""
    steps = plan.all_steps
    return list(dict.fromkeys(key for step in steps for key in (step.key, *step.inputs.values())))


def try_points(engine: Step, trials: tuple[Trial, ...], make: MakeStep) -> Step:
    """Builds and measures every point of a search; the step that chooses knows which failed: a result too."""
    failures = {}
    for number, trial in enumerate(trials):
        try:
            make(trial.engine)
            make(trial.measurement)
        except BuildFailed as exc:
            # a point that does not fit in memory, say: the others can still win
            failures[number] = str(exc).splitlines()[0]
    return replace(engine, places=TunedPlaces(failures=failures)) if trials else engine


def judge(plan: Plan, site: Site) -> Judgement:
    """The gate's verdict on the evaluated engine, and every metric with its interval."""
    step = plan.step("evaluation")
    key = find_address(step, site) or step.key
    records = gate.read_records(site.store.file(key, "samples.jsonl"))
    scores = json.loads(site.store.file(key, "scores.json").read_text())
    begin = scores.get("sequences_begin_with", {}).get("tokens") or ""
    verdict = gate.judge(plan.recipe.gate.limits, records, scores.get("scored", ""), begin)
    return Judgement(verdict, gate.estimates(records))
