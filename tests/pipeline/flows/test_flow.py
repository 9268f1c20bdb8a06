"""Runs on a real Prefect server with a real worker, started as people start them: `enginery up`."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact, State, TaskRun, TaskRunResult
from prefect.states import Cancelling

from artifacts.client import Client
from pipeline.cli.app import App
from pipeline.cli.commands.submit import report
from pipeline.flows.deployments import Order, Sent, follow, send
from pipeline.flows.prefect_server import Prefect
from tests.callables import Cli
from tests.pipeline.flows.upped import alive, free_port, loaded, running, start_up
from tests.pipeline.pages import browser as chromium
from tests.pipeline.toy_steps import INPUTS
from tests.present import present

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FLOW = "tests.pipeline.flows.toy_flow.release"


@dataclass
class Site:
    """A running `enginery up`."""

    server: Prefect
    store: Path

    def send(self, name: str, **more: Any) -> Sent:
        """Sends a toy recipe; `options` are the toys' orders."""
        order = Order(loaded=loaded(name, **more), store_url=str(self.store), registry_url=None)
        return send(order, self.server, entrypoint=FLOW)

    def end_of(self, sent: Sent) -> State[Any]:
        """The last state of a run."""
        return follow(sent, self.server, lambda state: None)

    def task_runs(self, sent: Sent) -> list[TaskRun]:
        """The run's task runs, as they started."""
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run(sent)]))
        with self.server.client() as client:
            found = client.read_task_runs(flow_run_filter=wanted)
        return sorted(found, key=lambda one: present(one.expected_start_time or one.created))

    def artifacts(self, sent: Sent) -> dict[str, Artifact]:
        """What the run published in the UI, by key."""
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run(sent)]))
        with self.server.client() as client:
            return {str(one.key): one for one in client.read_artifacts(artifact_filter=wanted)}


def flow_run(sent: Sent) -> UUID:
    """Id of the run that was started."""
    assert sent.flow_run_id is not None
    return sent.flow_run_id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Server and worker for all tests here."""
    base, port = tmp_path_factory.mktemp("site"), free_port()
    with running(base, port):
        yield Site(Prefect.at(f"http://127.0.0.1:{port}"), base / "store")


@pytest.fixture(scope="module")
def good(site: Site) -> Sent:
    """A finished run that searched two points, one of which crashed."""
    sent = site.send("toy/good", options={"seconds": 0.2}, tune={"space": {"max_batch_size": [1, 4]}})
    assert site.end_of(sent).is_completed()
    return sent


@pytest.fixture(scope="module")
def refused(site: Site) -> Sent:
    """A finished run whose engine is too far from its source."""
    sent = site.send("toy/refused", options={"kl": 0.5})
    site.end_of(sent)
    return sent


def test_every_step_is_a_task_run_in_the_order_of_the_plan(site: Site, good: Sent):
    names = [one.name.split()[0] for one in site.task_runs(good)]
    steps = list(INPUTS)
    assert names == [*steps[:4], "engine", "engine", "measurement", *steps[4:]]
    assert all(re.fullmatch(r"[a-z_]+ [0-9a-f]{12}", one.name) for one in site.task_runs(good))


def test_task_runs_wait_for_the_steps_they_read(site: Site, good: Sent):
    runs = {one.name.split()[0]: one for one in site.task_runs(good)}
    waited = {one.id for one in runs["evaluation"].task_inputs["wait_for"] if isinstance(one, TaskRunResult)}
    assert waited == {runs["engine"].id, runs["baseline"].id}


def test_a_failed_trial_is_a_result_not_the_end(site: Site, good: Sent):
    engines = [one for one in site.task_runs(good) if one.name.startswith("engine")]
    assert [present(one.state).name for one in engines] == ["Failed", "Completed", "Completed"]
    assert present(present(engines[0].state).message).startswith("BuildFailed: engine ")


def test_progress_of_every_step_reaches_the_end(site: Site, good: Sent):
    bars = [one for one in site.artifacts(good).values() if one.type == "progress"]
    finished = [one for one in bars if "crash" not in present(one.description) and one.data == 100.0]
    assert len(finished) == len(bars) - 1  # the trial that crashed
    assert all("; built in " in present(one.description) for one in finished)


def test_plan_verdict_metrics_tuning_and_version_can_be_read_in_the_ui(site: Site, good: Sent):
    found = site.artifacts(good)
    plan = json.loads(present(found["plan-toy-good"].data))
    assert [row["step"] for row in plan] == [one.name.split()[0] for one in planned(site, good)]
    assert {row["status"] for row in plan} == {"to build"}
    assert json.loads(present(found["verdict-toy-good"].data))[0]["outcome"] == "PASS"
    assert {"metric": "tokens_per_s", "value": 800.0, "low": None, "high": None} in json.loads(
        present(found["metrics-toy-good"].data)
    )
    (linears,) = json.loads(present(found["coverage-toy-good"].data))
    assert (linears["linear"], linears["weight_scale"]) == ("model.layers.{1..2}.mlp.up_proj", "1 to 2")
    assert "data:image/png;base64," in present(found["tuning-toy-good"].data)
    version = found["version-toy-good"].data
    assert present(version).startswith("# toy/good:1\n`toy/good@candidate` is this version. Gate: **PASS**")
    assert f"]({site.server.ui_url}/artifacts/key/engine-" in present(version)


def planned(site: Site, sent: Sent) -> list[TaskRun]:
    """The task runs, and one more for the measurement of the trial that was never built."""
    runs = site.task_runs(sent)
    crashed = next(n for n, one in enumerate(runs) if present(one.state).is_failed())
    measurement = next(one for one in runs if one.name.startswith("measurement"))
    return [*runs[: crashed + 1], measurement, *runs[crashed + 1 :]]


def test_the_published_version_is_in_the_registry(site: Site, good: Sent):
    record = Client(str(site.store)).resolve("toy/good@candidate")
    assert (record.number, record.verdict) == (1, "PASS")
    assert site.end_of(good).message == "published toy/good:1 as @candidate"


def test_the_same_recipe_again_builds_nothing_and_is_the_same_version(site: Site, good: Sent):
    again = site.send("toy/good", options={"seconds": 0.2}, tune={"space": {"max_batch_size": [1, 4]}})
    assert site.end_of(again).is_completed()
    bars = [one for one in site.artifacts(again).values() if one.type == "progress" and one.data == 100.0]
    assert len(bars) == 8  # one per kind: the search is not repeated
    assert all(present(one.description).endswith("; cached") for one in bars)
    assert "toy/good:1" in present(site.artifacts(again)["version-toy-good"].description)


def test_a_refusing_gate_fails_the_run_and_shows_the_verdict(site: Site, refused: Sent):
    state = site.end_of(refused)
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert present(state.message).startswith(
        "accuracy gate says FAIL: 1 of 1 checks over 16 samples did not pass"
    )
    row = json.loads(present(site.artifacts(refused)["verdict-toy-refused"].data))[0]
    assert (row["metric"], row["limit"], row["outcome"]) == ("kl", 0.01, "FAIL")
    assert "version-toy-refused" not in site.artifacts(refused)
    assert "toy/refused" not in Client(str(site.store)).registry.names()


@pytest.fixture(scope="module")
def broken(site: Site) -> Sent:
    """A finished run of which the second step failed."""
    sent = site.send("toy/broken", options={"broken": "calibration_set"})
    site.end_of(sent)
    return sent


def test_a_failed_step_says_why_in_a_line_and_ends_the_run(site: Site, broken: Sent):
    state = site.end_of(broken)
    line = "SourceError: model.safetensors: 7 of 9 bytes; fetch it again"
    assert (state.name, state.message) == ("Failed", line)
    runs = site.task_runs(broken)
    assert [(one.name.split()[0], present(one.state).name) for one in runs] == [
        ("source", "Completed"),
        ("calibration_set", "Failed"),
    ]
    assert present(runs[1].state).message == line


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("broken", 1), ("refused", 3)])
def test_waiting_for_a_run_ends_with_its_exit_code(
    site: Site, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], name: str, code: int
):
    app = App(str(site.store), None, json_mode=True, quiet=False, color=False)
    assert report(app, request.getfixturevalue(name), site.server, wait=True) == code
    app.out.flush()
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == {0: "Completed", 1: "Failed", 3: "Refused"}[code]


@pytest.mark.parametrize("how", ["cancelled in the UI", "killed"])
def test_a_run_that_is_stopped_takes_its_child_along(site: Site, tmp_path: Path, how: str):
    pid_file = tmp_path / "pid"
    options = {"hang": "source", "pid_file": str(pid_file)}
    sent = site.send("toy/hang", options=options)
    child = psutil.Process(int(wait_for_text(pid_file)))
    flow = psutil.Process(child.ppid())
    if how == "killed":
        flow.kill()
    else:
        with site.server.client() as client:
            client.set_flow_run_state(flow_run(sent), Cancelling())
    state = site.end_of(sent)
    psutil.wait_procs([child], timeout=10)
    assert not alive(child)
    assert state.name == ("Crashed" if how == "killed" else "Cancelled")
    drafts = [path for path in (site.store / "staging").iterdir() if f".{flow.pid}." in path.name]
    assert len(drafts) == (1 if how == "killed" else 0)  # litter, which the next run sweeps


def wait_for_text(file: Path, timeout_s: float = 60) -> str:
    """What a file holds, once it holds something."""
    deadline = time.monotonic() + timeout_s
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"{file} is not written"
        time.sleep(0.1)
    return file.read_text()


def test_a_port_in_use_is_said_and_nothing_starts(site: Site, cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "up", "--port", site.server.ui_url.rpartition(":")[2])
    assert done.returncode == 4
    assert (
        "cannot be used: Address already in use; stop what has it or choose another with --port"
        in done.stderr
    )


def test_nothing_outlives_an_up_that_is_killed_and_doctor_says_so(cli: Cli, tmp_path: Path):
    port = free_port()
    up = start_up(tmp_path / "store", port, tmp_path / "stderr")
    assert up.stdout is not None
    assert up.stdout.readline() == "{\n", (tmp_path / "stderr").read_text()
    family = psutil.Process(up.pid).children(recursive=True)
    assert any("server" in process.cmdline() for process in family)
    os.kill(up.pid, signal.SIGKILL)
    up.communicate()
    _, left = psutil.wait_procs(family, timeout=10)
    assert [process for process in left if alive(process)] == []
    done = cli("--store", tmp_path / "store", "doctor")
    assert done.returncode == 4
    assert (
        f"no Prefect server at http://127.0.0.1:{port}; start one with `enginery up`; `up` was killed"
        in done.stderr
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """A page of a real browser."""
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.browser
def test_a_browser_shows_the_finished_run_its_steps_and_reports(
    site: Site, good: Sent, page: chromium.Page, tmp_path: Path
):
    page.open(good.url)
    page.text_with("toy/good", "Completed", "11 Task runs", "toy:good")
    page.click("#task-runs")
    page.text_with(*(one.name for one in site.task_runs(good)))
    page.shoot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 20_000  # an empty page has 6 kB
    page.click("#artifacts")
    page.text_with(
        "plan-toy-good", "verdict-toy-good", "metrics-toy-good", "tuning-toy-good", "version-toy-good"
    )


@pytest.mark.browser
def test_a_browser_shows_version_and_plot(site: Site, good: Sent, page: chromium.Page):
    found = site.artifacts(good)
    page.open(f"{site.server.ui_url}/artifacts/artifact/{found['version-toy-good'].id}")
    page.text_with(
        "toy/good@candidate is this version. Gate: PASS", "enginery pull toy/good@candidate ./engine"
    )
    page.open(f"{site.server.ui_url}/artifacts/artifact/{found['tuning-toy-good'].id}")
    page.text_with("1, chosen", "max_batch_size 4", "out of registers")
    assert page.evaluate("document.querySelector('img[src^=\"data:\"]').naturalWidth") == 640


@pytest.mark.browser
def test_a_browser_shows_why_the_gate_refused(site: Site, refused: Sent, page: chromium.Page):
    page.open(refused.url)
    page.text_with("toy/refused", "Refused")
    page.open(f"{site.server.ui_url}/artifacts/artifact/{site.artifacts(refused)['verdict-toy-refused'].id}")
    page.text_with("toy/refused: FAIL over 16 samples", "0.01")
