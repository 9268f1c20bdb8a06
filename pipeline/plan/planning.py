"""From a recipe to a plan that nothing known in advance speaks against."""

from dataclasses import dataclass, replace

from pipeline import engines
from pipeline.fit.result import Fit
from pipeline.plan import refusals as checks
from pipeline.plan.facts import Facts, gather
from pipeline.plan.plan import Plan, plan, sensitivity
from pipeline.plan.recipe_fit import predicted
from pipeline.plan.request import request
from pipeline.step.realize import Site, is_cached
from pipeline.step.step import Step
from recipes.errors import RecipeError
from recipes.load import Loaded


def plan_one(loaded: Loaded, site: Site) -> Plan:
    """Plans one recipe, or raises RecipeError or BackendUnavailable with every reason."""
    drafted = draft(loaded, site)
    drafted.refusals.require_none(loaded)
    return drafted.plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan that this host may be unable to carry out."""

    loaded: Loaded
    plan: Plan
    fit: Fit | None
    """How the engine fits the GPU type that it is for; None where the recipe names none."""
    notes: tuple[str, ...]
    """What is done to tensors of the models, and settings that the backend decides, or changes before the
    builder would, each with why."""
    refusals: checks.Refusals
    """What this host lacks."""
    unkeyed: frozenset[str]
    """Keys that are none yet, because they follow from what is lacking."""


def draft(loaded: Loaded, site: Site) -> Draft:
    """Plans one recipe, or raises RecipeError with every reason against the recipe itself."""
    recipe, facts = loaded.recipe, gather(loaded, site.host, site.store)
    refusals = checks.refusals(recipe, facts)
    # only the recipe's own problems stop a draft: `plan` shows the rest beside the steps
    replace(refusals, host=()).require_none(loaded)
    planned = plan(loaded, facts)
    return Draft(
        loaded=loaded,
        plan=planned,
        fit=predicted(recipe, facts, recipe.engine),
        notes=(
            *checks.notes(facts),
            *engines.backend(recipe.engine.backend).notes(request(recipe, facts, recipe.engine)),
        ),
        # capacity needs the steps, and steps need a sound recipe: hence after `plan`
        refusals=replace(refusals, host=(*refusals.host, *checks.capacity(pending(planned, site), facts))),
        unkeyed=unkeyed(planned, facts),
    )


def unkeyed(planned: Plan, facts: Facts) -> frozenset[str]:
    """Keys that are none yet: of steps that follow from weights, or a toolchain, that are not here."""
    toolchain = engines.backend(planned.recipe.engine.backend).uses_toolchain and not facts.choice.toolchain
    # by role; heads have none here, for they are always read from a directory
    models = {"": facts.source, "draft": facts.draft}
    keys: set[str] = set()
    for step in planned.all_steps:
        model = models.get(step.role) if step.kind == "source" else None
        open_ = (model and model.lacking) or (step.kind == "engine" and toolchain)
        # steps are in build order, so one pass reaches all that follow
        if open_ or keys & set(step.inputs.values()):
            keys.add(step.key)
    return frozenset(keys)


def plan_sensitivity(loaded: Loaded, site: Site) -> tuple[Step, ...]:
    """The steps up to a recipe's sensitivity, or RecipeError or BackendUnavailable with every reason.

    What only an engine needs is not asked for.
    """
    if loaded.recipe.calibration is None:
        raise RecipeError(
            loaded.file,
            ["calibration is required: sensitivity is measured on data; "
             "add 'calibration: {data: [{path: ...}]}'"],
        )  # fmt: skip
    facts = gather(loaded, site.host, site.store)
    checks.measuring(loaded.recipe, facts).require_none(loaded)
    steps = sensitivity(loaded, facts)
    to_run = tuple(step for step in steps if not is_cached(step, site))
    checks.Refusals(recipe=(), host=checks.capacity(to_run, facts)).require_none(loaded)
    return steps


def pending(planned: Plan, site: Site) -> tuple[Step, ...]:
    """The steps that would run: those of the plan, and of its trials unless the tuned engine is there."""
    # trials may have been collected since; the tuned engine does not need them again
    steps = planned.steps if is_cached(planned.step("engine"), site) else planned.all_steps
    return tuple(step for step in steps if not is_cached(step, site))
