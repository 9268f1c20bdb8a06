"""lint: the tuning checklist, applied to a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH

if TYPE_CHECKING:
    from pipeline.backend.lint_rule import Advice


@click.command()
@click.argument("recipe", type=PATH)
@click.pass_obj
def lint(app: App, recipe: Path) -> None:
    """Suggest changes to RECIPE, with reasons and measured effects; builds nothing.

    Advice is not an error: the exit code is 0. Of the model only config.json is read.

    Example: enginery lint recipes/production/70b_fp8_kv_h200.yaml
    """
    from pipeline.advice.lint import lint as advise
    from pipeline.advice.lint import rule_names
    from pipeline.plan.facts import source_of  # reads headers
    from recipes.load import load

    for loaded in load(recipe):
        name, advice = loaded.recipe.name, advise(loaded.recipe, source_of(loaded, app.site.store).shape)
        if app.out.json_mode:
            app.out.value({"name": name, "advice": [item.as_dict() for item in advice]}, text="")
        elif app.out.quiet:
            app.out.rows([item.as_dict() for item in advice], id_column="id")
        else:
            _print_advice(app, name, advice)
        app.out.say(f"{name}: {len(advice)} of {len(rule_names())} rules have advice")


def _print_advice(app: App, name: str, advice: "list[Advice]") -> None:
    """Prints what to change as a table, then why, one paragraph each."""
    app.out.rows([{"rule": item.id, "change": item.change} for item in advice], id_column="rule", title=name)
    for item in advice:
        app.out.line(f"\n{item.id}: {item.text}\n  effect: {item.effect}\n  source: {item.source}")
