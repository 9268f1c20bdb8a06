"""Runs a plan: every step, the gate, publication. Prefect and the command line both come through here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from artifacts.collection import registries
from artifacts.registry.registry import Registry
from pipeline.errors import BuildFailed
from pipeline.evaluate import gate
from pipeline.plan.plan import Plan, Trial
from pipeline.run import publish
from pipeline.run.publish import Judged
from pipeline.step.realize import Listener, Made, Site, held, is_cached, realize
from pipeline.step.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    name: str
    version: int
    alias: str
    engine_key: str
    judged: Judged
    made: tuple[Made, ...]


Realize = Callable[[Step, Mapping[str, object]], Made]
"""Makes one step's artifact exist; the second argument adds places."""


def run(plan: Plan, site: Site, registry: Registry, listener: Listener) -> Outcome:
    """Builds, gates and publishes what the plan describes; a verdict other than PASS publishes nothing."""
    return through(plan, site, registry, lambda step, places: realize(step, site, listener, places=places))


def through(plan: Plan, site: Site, registry: Registry, make: Realize) -> Outcome:
    """The run with the way a step is made left open: directly, or as a Prefect task.

    What it finds and what it makes is leased from here until it is published.
    """
    with site.store.lease(keys(plan), f"the run of {plan.recipe.name}") as held:
        registries.remember(site.store, registry.url)
        made = _made(plan, site, make)
        judged = judge(plan, site)
        judged.verdict.require()
        held.require()  # else a sweep may have taken what is about to be named
        version = publish.publish(plan, site, registry, judged)
    registries.remember_own(site.store, registry.url)
    return Outcome(
        name=plan.recipe.name,
        version=version,
        alias=plan.recipe.publish.alias,
        engine_key=plan.step("engine").key,
        judged=judged,
        made=made,
    )


def keys(plan: Plan) -> list[str]:
    """Every artifact that a run may find, make or read."""
    tried = [step for trial in plan.trials for step in (trial.engine, trial.measurement)]
    steps = [*plan.steps, *tried]
    return list(dict.fromkeys(key for step in steps for key in (step.key, *step.inputs.values())))


def _made(plan: Plan, site: Site, make: Realize) -> tuple[Made, ...]:
    """Every step in order; before an engine that is searched for, all points of the search."""
    made = []
    for step in plan.steps:
        search = step.kind == "engine" and plan.trials and not is_cached(step, site)
        failures = try_points(plan.trials, make) if search else {}
        made.append(make(step, {"failures": failures}))
    return tuple(made)


def try_points(trials: tuple[Trial, ...], make: Realize) -> dict[str, str]:
    """Builds and measures every point; returns number -> why for those that failed, which is a result too."""
    failures = {}
    for number, trial in enumerate(trials):
        try:
            make(trial.engine, {})
            make(trial.measurement, {})
        except BuildFailed as exc:
            failures[str(number)] = str(exc).splitlines()[0]
    return failures


def judge(plan: Plan, site: Site) -> Judged:
    """The gate's verdict on the evaluated engine, and every metric with its interval."""
    step = plan.step("evaluation")
    key = held(step, site) or step.key
    records = gate.read_records(site.store.file(key, "samples.jsonl"))
    scores = json.loads(site.store.file(key, "scores.json").read_text())
    begin = scores.get("sequences_begin_with", {}).get("tokens") or ""
    verdict = gate.judge(plan.recipe.gate.limits, records, scores.get("scored", ""), begin)
    return Judged(verdict, gate.estimates(records))
