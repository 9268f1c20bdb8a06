"""tools sensitivity: the quantization error of each linear, before an engine is built."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import ORDINAL, PATH, Finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.sensitivity.proposal import Proposal, Unit
    from pipeline.step.step import Step
    from recipes.load import Loaded

SHOWN = 20
"""Units listed on a terminal; the page and the JSON have all."""

DEFAULT_FORMAT = "fp8"
"""Format asked about where the recipe's own leaves the weights alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a measured model."""

    formats: tuple[str, ...]
    """Formats by name; none: the recipe's."""
    wider: str
    keep: int | None
    gain: float | None


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--format", "formats", multiple=True, metavar="FORMAT",
              help="Format to measure, repeatable; default: the recipe's, or fp8.")  # fmt: skip
@click.option("--wider", default="none", show_default=True, help="Format that exceptions get.")
@click.option("--keep", type=ORDINAL, help="Exceptions to propose; default: a tenth of the units.")
@click.option("--gain", type=Finite(0, 1), help="Share of the error to remove, instead of --keep.")
@click.pass_obj
def sensitivity(app: App, /, recipe: Path, **options: Any) -> None:
    """Measure the quantization error of each linear, and propose exceptions; builds no engine.

    Example: enginery tools sensitivity recipes/demo/int4_awq_tp2.yaml --keep 3
    """
    from pipeline.plan.planning import plan_sensitivity  # reads checkpoints and data
    from recipes.load import load

    question = Question(**options)
    if question.keep is not None and question.gain is not None:
        raise click.UsageError("--keep and --gain both set the number of exceptions; give one")
    # recipes with one measurement in common make it once, and each set of formats is printed once
    answers: dict[tuple[str, tuple[str, ...]], tuple[Loaded, tuple[Step, ...]]] = {}
    for loaded in load(recipe):
        formats = formats_of(loaded, question)
        steps = plan_sensitivity(loaded, app.site)
        answers.setdefault((steps[-1].key, formats), (loaded, steps))
    for (key, formats), (loaded, steps) in answers.items():
        build_artifacts(app, loaded, steps)
        print_proposals(app, loaded, app.site.store.directory(key), replace(question, formats=formats))


def formats_of(loaded: "Loaded", question: Question) -> tuple[str, ...]:
    """Formats to tell about; raises click's error for one that there is not or that cannot be asked about."""
    from calibration.sensitivity.proposal import widers  # with the formats
    from recipes.formats import FORMATS
    from recipes.schema import check_format

    default = loaded.recipe.precision.default.name
    names = question.formats or ((default,) if default != "none" else (DEFAULT_FORMAT,))
    try:
        for name in (*names, question.wider):
            check_format(name)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    recorded = loaded.recipe.calibration.statistics if loaded.recipe.calibration else "all"
    for name in names:
        if name == "none":
            raise click.UsageError("--format none quantizes nothing; give another format")
        if FORMATS[name].needs == "search" and recorded != "all":
            raise click.UsageError(
                f"{name} needs AWQ's search; the recipe must have calibration.statistics: all"
            )
        if question.wider not in widers(name):
            allowed = ", ".join(widers(name))
            raise click.UsageError(
                f"--wider {question.wider} has no more bits than {name}; allowed: {allowed}"
            )
    return tuple(dict.fromkeys(names))


def build_artifacts(app: App, loaded: "Loaded", steps: "Sequence[Step]") -> None:
    """Makes the steps' artifacts exist."""
    from pipeline.cli.progress import Display  # rich's bars: only where something runs
    from pipeline.step.realize import realize

    app.out.say(loaded.recipe.name)
    # or gc could take the first artifact while the last is made
    leased = app.site.store.lease([step.key for step in steps], f"the analysis of {loaded.recipe.name}")
    with leased, Display(app.out) as display:
        for step in steps:
            realize(step, app.site, display)


def print_proposals(app: App, loaded: "Loaded", artifact: Path, question: Question) -> None:
    """Prints the ranking and the proposal of every format asked about."""
    from calibration.sensitivity.proposal import Unit, propose

    document = json.loads((artifact / "sensitivity.json").read_text(encoding="utf-8"))
    units = [Unit.of(unit) for unit in document["units"]]
    proposals = [
        propose(units, name, question.wider, keep=question.keep, gain=question.gain)
        for name in question.formats
    ]
    page = artifact / "page.html"
    if app.out.json_mode or app.out.quiet:
        answer = {
            "name": loaded.recipe.name,
            "key": artifact.name,
            "page": str(page),
            "proposals": [{"wider": entry.wider, **entry.as_dict()} for entry in proposals],
            "units": document["units"],
            "linears": document["linears"],
        }
        app.out.value(answer, text="", short=artifact.name)
        return
    for proposal in proposals:
        _print_format(app, units, proposal)
        if question.gain is not None and proposal.gain < question.gain:
            app.out.warn(
                f"{proposal.format}: leaving everything at {proposal.wider} removes less than --gain"
            )
    app.out.say(
        "a proxy: it adds up the errors of linears, measured on a few rows of the calibration set; the gate "
        f"measures what the exceptions gain for the model\npicture and all formats: {page}"
    )


def _print_format(app: App, units: "Sequence[Unit]", proposal: "Proposal") -> None:
    from calibration.sensitivity.proposal import ranked

    if not proposal.fitting:
        raise click.UsageError(f"blocks of {proposal.format} fit no linear of the model; give another format")
    rows = ranked(units, proposal)
    app.out.rows(rows[:SHOWN], id_column="unit", title=f"{proposal.format}: relative output error")
    if len(rows) > SHOWN:
        app.out.line(f"and {len(rows) - SHOWN} more")
    app.out.line(f"\n{proposal.summary}:\n\n{proposal.yaml}")
