"""plan, run, demo: from a recipe to a published version."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import MOST, PATH, Finite

if TYPE_CHECKING:
    from pipeline.fit.result import Fit
    from pipeline.plan.planning import Draft
    from pipeline.run.release import Outcome
    from recipes.schema import Engine

RECIPE = click.argument("recipe", type=PATH)


@click.command()
@RECIPE
@click.pass_obj
def plan(app: App, recipe: Path) -> None:
    """Show the steps of RECIPE, which are cached and which would run, and whether it fits its GPUs.

    Plans print on any machine. If this host cannot run one, the reasons follow, with exit code 4.

    Example: enginery plan recipes/demo/int4_awq_tp2.yaml
    """
    drafts = app.drafts(recipe)
    for drafted in drafts:
        _print_plan(app, drafted)
    _require_host(drafts)


@click.command()
@RECIPE
@click.option("--dry-run", is_flag=True, help="Plan and stop.")
@click.option(
    "--step-timeout", type=Finite(0, MOST, min_open=True), help="Most hours that one step may take."
)
@click.pass_context
def run(ctx: click.Context, recipe: Path, dry_run: bool, step_timeout: float | None) -> None:
    """Build the engine of RECIPE, gate it on accuracy and publish it.

    Example: enginery run recipes/demo/int4_awq_tp2.yaml
    """
    if dry_run:
        ctx.invoke(plan, recipe=recipe)
        return
    if step_timeout is not None:
        # `site` is a cached property: setting it replaces it for this run
        ctx.obj.site = replace(ctx.obj.site, timeout_s=3600 * step_timeout)
    run_file(ctx.obj, recipe)


@click.command()
@click.option("--prompt", default="def read_text(path):", help="Prompt for the engine.")
@click.pass_obj
def demo(app: App, prompt: str) -> None:
    """Run the demo recipe, then generate text with the published engine.

    Example: enginery --store .demo/store demo
    """
    from pipeline.cli.commands.generate import generate_text  # after the run, not for --help

    recipe = Path(__file__).resolve().parents[3] / "recipes" / "demo" / "int4_awq_tp2.yaml"
    for outcome in run_file(app, recipe):
        reference = f"{outcome.name}@{outcome.alias}"
        command = f"{_program()} --store {app.store_url}"
        app.out.say(f"\n$ {command} generate {reference} {prompt!r}")
        generate_text(app, reference, prompt, max_new_tokens=64)
        app.out.say(
            f"\nNext:\n  {command} show {reference}\n  {command} pull {reference} ./engine\n"
            f"  {command} generate --chat {reference} 'Write a Python function `close`. Close the file.'\n"
            f"  {command} plan {_relative(recipe.parent / 'all.yaml')}"
        )


def _program() -> str:
    """How this program was called."""
    return _relative(Path(sys.argv[0])) if sys.argv[0].endswith("enginery") else "enginery"


def _relative(path: Path) -> str:
    """A path as short as it can be typed from here."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def run_file(app: App, file: Path) -> "list[Outcome]":
    """Runs every recipe of a file, in order; one that fails does not keep the others from being built."""
    from pipeline.cli.progress import Display  # rich's bars: only where something runs
    from pipeline.errors import EXIT_CODES
    from pipeline.run.release import run_plan
    from pipeline.step.realize import realize

    outcomes, failures = [], []
    # all are planned before the first is built: a mistake in the last one costs nothing
    plans = [plan for _, plan in app.plans(file)]
    for plan in plans:
        app.out.say(plan.recipe.name)
        try:
            with Display(app.out) as display, app.announcing():
                make = partial(realize, site=app.site, listener=display)
                outcomes.append(run_plan(plan, app.site, app.registry, make))
            _print_outcome(app, outcomes[-1])
        except tuple(EXIT_CODES) as exc:
            # only expected errors come here: a bug ends the run at once
            failures.append(exc)
            # a single failure is printed at the end anyway
            if len(plans) > 1:
                app.out.say(f"failed {plan.recipe.name}: {exc}")
    if failures:
        if len(plans) > 1:
            failures[0].add_note(f"{len(failures)} of {len(plans)} recipes failed; the others are published")
        # the first one's exit code is that of the run
        raise failures[0]
    return outcomes


def _print_outcome(app: App, outcome: "Outcome") -> None:
    checks = outcome.judged.verdict.rows()
    if not app.out.json_mode and not app.out.quiet:
        columns = ("metric", "value", "low", "high", "limit", "outcome")
        app.out.rows([{name: check[name] for name in columns} for check in checks], id_column="metric")
        if begin := outcome.judged.verdict.begin:
            app.out.line(f"every scored sequence begins with {begin}, itself not scored")
        if scored := outcome.judged.verdict.scored:
            app.out.line(
                f"scored {scored}/, the engine's twin without drafts; the engine generates what it scores"
            )
    app.out.value(
        {
            "name": outcome.name,
            "version": outcome.version,
            "alias": outcome.alias,
            "engine_key": outcome.engine_key,
            "verdict": outcome.judged.verdict.as_dict(),
            "steps": [
                {"kind": m.step.name, "key": m.step.key, "digest": m.manifest.digest, "cached": m.cached}
                for m in outcome.made
            ],
        },
        text=_publication_text(outcome, app.registry.aliases(outcome.name).get(outcome.alias)),
        short=f"{outcome.name}:{outcome.version}",
    )


def _publication_text(outcome: "Outcome", at: int | None) -> str:
    """What came of a run, whose alias is at that version: one that somebody moved away since stays there."""
    version = f"{outcome.name}:{outcome.version}"
    if at == outcome.version:
        return f"published {version} as @{outcome.alias}"
    stays = f"version {at}" if at else "no version"
    return f"{version} was published before; @{outcome.alias} stays at {stays}"


def _print_plan(app: App, drafted: "Draft") -> None:
    """Prints a plan and its fit; as JSON, in one object."""
    plan, rows = drafted.plan, _rows(app, drafted)
    name = plan.recipe.name
    if app.out.json_mode:
        fit = drafted.fit.as_dict() if drafted.fit else None
        answer = {"name": name, "steps": rows, "fit": fit, "notes": list(drafted.notes)}
        app.out.value({**answer, "lacking": list(drafted.refusals.host)}, text="")
        return
    if app.out.quiet:
        rows = [row for row in rows if row["key"]]
    app.out.rows(rows, id_column="key", title=name)
    for note in () if app.out.quiet else drafted.notes:
        app.out.line(note)
    if drafted.fit and not app.out.quiet:
        _print_fit(app, drafted.fit, plan.recipe.engine)
    to_run = sum(row["status"] == "run" for row in rows)
    app.out.say(
        f"{name}: {to_run} of {len(rows)} steps would run, then the gate "
        f"and publication as @{plan.recipe.publish.alias}"
        + ("; keys are missing where this host lacks what they depend on" if drafted.unkeyed else "")
    )


def _print_fit(app: App, fit: "Fit", engine: "Engine") -> None:
    from pipeline.fit import table  # with the plan
    from pipeline.process.gpus import TARGETS

    app.out.line("")
    app.out.rows(table.rows(fit, TARGETS[engine.target]), id_column="rank", title="GB per rank")
    for sentence in table.sentences(fit, engine):
        app.out.line(sentence)


def _require_host(drafts: "list[Draft]") -> None:
    """Raises what this host lacks for the first recipe that it lacks anything for."""
    from pipeline.errors import BackendUnavailable  # an error is rare

    unbuildable = [drafted for drafted in drafts if drafted.refusals.host]
    if not unbuildable:
        return
    try:
        unbuildable[0].refusals.require_none(unbuildable[0].loaded)
    except BackendUnavailable as exc:
        if len(drafts) > 1:
            exc.add_note(f"{len(unbuildable)} of {len(drafts)} recipes cannot be built on this host")
        raise


def _rows(app: App, drafted: "Draft") -> list[dict[str, Any]]:
    from pipeline.plan.planning import pending  # with the plan

    plan = drafted.plan
    to_run = {step.key for step in pending(plan, app.site)}
    # scripts look keys up, people compare them
    length = None if app.out.json_mode else 12
    return [
        {
            "step": step.name,
            "key": None if step.key in drafted.unkeyed else step.key[:length],
            "status": "run" if step.key in to_run else "cached",
            "what": step.what,
        }
        for step in plan.all_steps
    ]
