"""submit and `stale --submit` from the shell, to a real server with a real worker."""

import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Cancelled, Cancelling

from artifacts.store.opening import open_store
from pipeline.process.host import probe
from pipeline.step.realize import Site as LocalSite
from tests.callables import Cli
from tests.main_job import write_recipe
from tests.pipeline.flows.test_flow import Site, site
from tests.pipeline.plans import planned
from tests.pipeline.rebuild.test_version_survey import publish_plan, with_own_data
from tests.present import present
from tests.test_main_job import damaged

__all__ = ["site"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def call(site: Site, cli: Cli, recipe: Path, *options: str):
    """`enginery submit` to the server of the fixture; stdout is a document."""
    at = ("--store", site.store, "--json", "submit", recipe, "--server", site.server.ui_url)
    done = cli(*at, *options)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_recipe_is_registered_without_a_run(site: Site, cli: Cli, tmp_path: Path):
    code, answer, err = call(
        site, cli, write_recipe(tmp_path / "recipe.yaml", name="test/later"), "--schedule-only"
    )
    assert (code, answer["flow_run_id"]) == (0, None), err
    with site.server.client() as client:
        deployment = client.read_deployment(answer["deployment_id"])
    assert deployment.parameters["recipe"]["name"] == "test/later"
    with site.server.client() as client:
        assert client.read_flow_runs() == []


def test_waiting_tells_how_a_real_run_ended(site: Site, cli: Cli, tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe.yaml", name="test/nan", model__path=str(damaged(tmp_path)))
    code, answer, err = call(site, cli, recipe, "--wait")
    assert (code, answer["state"]) == (1, "Failed"), err
    assert "NaN" in answer["message"]
    assert "model.safetensors" in answer["message"]


def test_as_many_runs_at_once_as_up_was_told(site: Site, tmp_path: Path):
    files = [tmp_path / str(n) for n in range(3)]
    sent = [
        site.send(f"toy/hang{n}", options={"hang": "source", "pid_file": str(file)})
        for n, file in enumerate(files)
    ]
    begun: list[Any] = []
    while len(begun) < 2:  # the fixture says --runs 2
        time.sleep(0.2)
        begun = [file for file in files if file.exists() and file.read_text()]
    time.sleep(5)
    waiting = [one for one in files if not one.exists()]
    assert len(waiting) == 1
    with site.server.client() as client:
        for one in sent:
            client.set_flow_run_state(present(one.flow_run_id), Cancelling())
    assert {site.end_of(one).name for one in sent} == {"Cancelled"}


def test_rebuilds_of_what_is_stale_are_sent(site: Site, cli: Cli, tmp_path: Path):
    here = LocalSite(store=open_store(site.store), host=probe())
    record = publish_plan(planned(with_own_data(tmp_path), here), here)
    data = tmp_path / "calibration.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    at = ("--store", site.store, "--json", "registry", "stale", record.name, "--offline")
    done = cli(*at, "--submit", "--server", site.server.ui_url)
    assert done.returncode == 0, done.stderr
    (url,) = re.findall(rf"sent {record.name}: (\S+)", done.stderr)
    with site.server.client() as client:
        run = client.read_flow_run(UUID(url.rpartition("/")[2]))
        client.set_flow_run_state(run.id, Cancelled(), force=True)  # it was sent: that is all
    assert run.parameters["recipe"]["name"] == record.name
