"""`enginery submit` from the shell, to a real server: registered only, or run to its end by the worker."""

import json

import pytest

from artifacts.store.local import open_store
from tests.main_job import write_recipe
from tests.pipeline.test_flows import Site, site
from tests.test_main_job import damaged

__all__ = ["site"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def call(site: Site, cli, recipe, *options: str):
    """`enginery submit` to the server of the fixture; stdout is a document."""
    at = ("--store", site.store, "--json", "submit", recipe, "--server", site.server.ui_url)
    done = cli(*at, *options)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_recipe_is_registered_without_a_run(site, cli, tmp_path):
    code, answer, err = call(
        site, cli, write_recipe(tmp_path / "recipe.yaml", name="test/later"), "--schedule-only"
    )
    assert (code, answer["flow_run_id"]) == (0, None), err
    with site.server.client() as client:
        deployment = client.read_deployment(answer["deployment_id"])
    assert deployment.parameters["recipe"]["name"] == "test/later"
    assert open_store(site.store).keys() == []


def test_waiting_tells_how_a_real_run_ended(site, cli, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", name="test/nan", model__path=str(damaged(tmp_path)))
    code, answer, err = call(site, cli, recipe, "--wait")
    assert (code, answer["state"]) == (1, "Failed"), err
    assert "NaN" in answer["message"]
    assert "model.safetensors" in answer["message"]
