"""lint: the tuning checklist, before anything is built."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.parameter_types import PATH

if TYPE_CHECKING:
    from pipeline.backend.lint_rule import Advice


@click.command()
@click.argument("recipe", type=PATH)
@click.pass_obj
def lint(app: App, recipe: Path) -> None:
    """Say what of RECIPE is worth changing, why, and what it gained where it was measured; builds nothing.

    Advice is no error: the exit code is 0. The model's config.json suffices.

    Example: enginery lint recipes/production/70b_fp8_kv_h200.yaml
    """
    from pipeline.advice.lint import lint as advise
    from pipeline.advice.lint import rule_names
    from pipeline.plan.facts import source_of  # reads headers
    from recipes.load import load

    for loaded in load(recipe):
        name, found = loaded.recipe.name, advise(loaded.recipe, source_of(loaded, app.site.store).shape)
        if app.out.json_mode:
            app.out.value({"name": name, "advice": [one.as_dict() for one in found]}, text="")
        elif app.out.quiet:
            app.out.rows([one.as_dict() for one in found], id_column="id")
        else:
            _tell(app, name, found)
        app.out.say(f"{name}: {len(found)} of {len(rule_names())} rules have advice")


def _tell(app: App, name: str, found: "list[Advice]") -> None:
    """Prints what to change as a table, then why, one paragraph each."""
    app.out.rows([{"rule": one.id, "change": one.change} for one in found], id_column="rule", title=name)
    for one in found:
        app.out.line(f"\n{one.id}: {one.text}\n  effect: {one.effect}\n  source: {one.source}")
