"""A flow whose steps take a moment: real children, store, gate, registry and Prefect; only the builders are small."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow

from pipeline.cli.app import App
from pipeline.flows.flow import reported, run_as_tasks
from recipes.schema import Recipe
from tests.pipeline.toy_steps import CHILD, toy_plan


@flow(name="release", flow_run_name="{recipe.name}")
def release(recipe: Recipe, file: str, store_url: str, registry_url: str | None = None) -> Any:
    """The flow of `pipeline.flows.flow` on a plan of small steps."""
    app = App(store_url, registry_url, json_mode=False, quiet=True, color=False)
    site = replace(app.site, child=CHILD)
    return reported(lambda: run_as_tasks(toy_plan(recipe, Path(file)), site, app.registry))
