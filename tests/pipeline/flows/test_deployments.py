"""What is sent to a server, and what is refused before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint

from pipeline.errors import BackendUnavailable
from pipeline.flows.deployments import ENTRYPOINT, STALE, Order
from pipeline.flows.prefect_server import Prefect
from recipes.load import Loaded, load
from recipes.schema import Recipe

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "recipes").rglob("*.yaml"))


def loaded(**more) -> Loaded:
    """A recipe with more keys."""
    recipe = {
        "version": 1, "name": "llama/fp8_tp2", "model": {"path": "model"}, "format": "none",
        "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.01}},
    }  # fmt: skip
    return Loaded(Recipe.model_validate(recipe | more), Path("recipes/some.yaml"))


def test_a_server_may_be_given_with_or_without_api():
    assert Prefect.at("http://h:4200/") == Prefect.at("http://h:4200/api") == Prefect("http://h:4200/api")
    assert Prefect.at("http://h:4200/api").ui_url == "http://h:4200"


def test_parameters_hold_the_whole_recipe_and_absolute_places_but_no_password():
    url = "postgresql://build:s3cret@db/enginery"
    parameters = Order(loaded=loaded(), store_url="/store", registry_url=url).parameters
    assert Recipe.model_validate(parameters["recipe"]) == loaded().recipe
    assert parameters["file"] == str(Path("recipes/some.yaml").resolve())
    assert parameters["registry_url"] == "postgresql://build@db/enginery"
    assert "s3cret" not in str(parameters)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_recipe_is_read_again_from_the_parameters_of_its_flow(file: Path):
    for each in load(file):
        sent = Order(loaded=each, store_url="/store", registry_url=None).parameters["recipe"]
        assert Recipe.model_validate(json.loads(json.dumps(sent))) == each.recipe


def test_deployments_of_different_recipes_never_share_a_name():
    flat = Order(loaded=loaded(name="llama-fp8_tp2"), store_url="/store", registry_url=None)
    nested = Order(loaded=loaded(), store_url="/store", registry_url=None)
    assert (flat.deployment, nested.deployment) == ("llama-fp8_tp2", "llama:fp8_tp2")


def test_no_server_is_said_with_what_to_do():
    server = Prefect.at("http://127.0.0.1:1")  # nobody listens on port 1
    message = r"no Prefect server at http://127.0.0.1:1; start one with `enginery up`"
    with pytest.raises(BackendUnavailable, match=message), server.client():
        pass


def test_planning_and_running_import_no_prefect(run_python: Callable[[str], str]):
    code = "import sys, pipeline.cli.main, pipeline.plan.planning, pipeline.run.release, pipeline.cli.commands.run, pipeline.cli.commands.submit"
    assert run_python(f"{code}; print('prefect' in sys.modules)") == "False\n"


@pytest.mark.parametrize(
    ("entrypoint", "name", "parameters"),
    [
        (ENTRYPOINT, "release", {"recipe", "file", "store_url", "registry_url"}),
        (STALE, "rebuild_stale", {"asked", "store_url", "registry_url", "server_url"}),
    ],
)
def test_a_registered_deployment_still_loads_its_flow(entrypoint, name: str, parameters):
    """Servers keep entrypoints and parameters by name: neither may change."""
    assert entrypoint == f"pipeline.flows.{name}"
    flow: Any = load_flow_from_entrypoint(entrypoint)
    assert (flow.name, flow.parameters.properties.keys()) == (name, parameters)
