"""Schedules that fire by themselves on a real Prefect server, and one whose scheduler is broken."""

import asyncio
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.server.database import provide_database_interface
from prefect.server.models.deployments import _generate_scheduled_flow_runs, _insert_scheduled_flow_runs
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

from artifacts.client import Client
from pipeline.flows.deployments import Order, send
from pipeline.flows.prefect_server import Prefect
from pipeline.flows.schedules import active, next_runs, unplanned, wait_for_next_runs
from pipeline.flows.server_watch import inspect_server
from recipes.load import Loaded
from tests.callables import Cli, Finished
from tests.cases import lay_out
from tests.contract import runtime
from tests.pipeline.flows.upped import free_port, loaded, running
from tests.present import present

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRES_WITHIN_S = 400.0
"""A minute until it fires, half a minute for the flow; several times that on a busy host."""

ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


@dataclass
class Site:
    """A running `enginery up`, and a recipe of every minute that was sent to it, with `stale` beside it."""

    server: Prefect
    base: Path
    path: str
    """PATH with a toolchain on it."""
    answers: dict[str, dict[str, str]]

    @property
    def store(self) -> Path:
        return self.base / "store"

    def order(self, recipe: Loaded) -> Order:
        return Order(loaded=recipe, store_url=str(self.store), registry_url=None)

    def completed(self, deployment: str) -> FlowRun:
        """The first completed run of a deployment; a failed one is an error."""
        (first, *_) = self.runs(UUID(deployment), *ENDED)
        assert first.state is not None
        assert first.state.is_completed(), first.state.message
        return first

    def runs(self, deployment: UUID, *types: StateType) -> list[FlowRun]:
        """The runs of a deployment in such states, once there is one."""
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
        )
        deadline = time.monotonic() + FIRES_WITHIN_S
        with self.server.client() as client:
            while not (runs := client.read_flow_runs(flow_run_filter=wanted)):
                assert time.monotonic() < deadline, f"no run is {', '.join(types)}"
                time.sleep(1)
        return runs


@pytest.fixture(scope="module")
def site(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that looks over its schedules every 10 s, not every minute, and two schedules of every minute."""
    base, port = tmp_path_factory.mktemp("site"), free_port()
    path = f"{runtime.toolchain(base / 'trtllm', '0.16.0') / 'bin'}:{os.environ['PATH']}"
    recipe = lay_out("schedule-never-runs", base / "case")
    with running(base, port, PATH=path, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="10"):
        to = ("--server", f"http://127.0.0.1:{port}")
        answers = {}
        for name, command in {
            "recipe": ("submit", recipe, "--schedule-only"),
            "stale": ("registry", "stale", "--offline", "--schedule", "* * * * *"),
        }.items():
            done = cli("--store", base / "store", "--json", *command, *to)  # without the worker's toolchain
            assert done.returncode == 0, done.stderr
            answers[name] = json.loads(done.stdout)
        yield Site(Prefect.at(f"http://127.0.0.1:{port}"), base, path, answers)


def server_rows(done: Finished) -> dict[str, dict[str, str]]:
    """What `doctor` says of the server."""
    document = json.loads(done.stdout)
    rows = document["answer"] if done.returncode else document
    return {row["what"]: row for row in rows if row["what"].startswith("Prefect ")}


def test_submit_says_when_the_next_run_is(site: Site):
    for answer in site.answers.values():
        assert answer["flow_run_id"] is None
        assert datetime.fromisoformat(answer["next_run"]).second == 0


def test_the_time_zone_decides_when_a_schedule_fires(site: Site):
    nightly = {"cron": "0 3 * * *", "timezone": "Asia/Kathmandu"}
    sent = send(site.order(loaded("toy/nightly", schedule=nightly)), site.server, start=False)
    awaited = wait_for_next_runs(site.server, [sent.deployment_id], list)
    start = awaited.starts[sent.deployment_id].astimezone(UTC)
    assert (start.hour, start.minute, awaited.problem) == (21, 15, "")
    assert start < datetime.now(UTC) + timedelta(days=1)


def test_of_a_far_schedule_the_first_time_is_said(site: Site, cli: Cli, tmp_path: Path):
    recipe, far = lay_out("schedule-never-runs", tmp_path), datetime.now(UTC) + timedelta(days=200)
    day, month = f"{far.day}", f"{far.month}"
    text = recipe.read_text().replace("pub/every-minute", "pub/far")
    recipe.write_text(
        re.sub(r"schedule:.*", f'schedule: {{cron: "30 2 {day} {month} *", timezone: Asia/Tokyo}}', text)
    )
    done = cli("--store", site.store, "submit", recipe, "--schedule-only", "--server", site.server.ui_url)
    assert done.returncode == 0, done.stderr
    told = f"; next run {far:%Y-%m-%d} 02:30 Asia/Tokyo; the server plans runs of the next 100 days\n"
    assert done.stdout.endswith(told)
    with site.server.client() as client:
        assert active(client, settled_s=0).later == 1


def test_what_was_just_registered_is_counted_by_itself(site: Site):
    send(site.order(loaded("toy/young", schedule={"cron": "0 4 * * *"})), site.server, start=False)
    with site.server.client() as client:
        assert active(client).young >= 1
    told = {row.what: row.told for row in inspect_server(site.server, None)}["Prefect schedules"]
    assert re.search(r" [1-9]\d* registered less than 75 s ago", told)


async def inserted_late(deployment: UUID, meanwhile: Callable[[], object]) -> list[UUID]:
    """Prefect's scheduler, slow: it reads the schedules, something happens, it writes the runs it planned.

    The first of them is due at once, to spare a minute.
    """
    db, now = provide_database_interface(), datetime.now(UTC)
    async with db.session_context() as session:
        runs = await _generate_scheduled_flow_runs(
            db, session, deployment, now, now + timedelta(days=9), timedelta(hours=1), min_runs=3, max_runs=99
        )
    meanwhile()
    first = min(runs, key=lambda run: run["expected_start_time"])
    first |= {key: datetime.now(UTC) for key in ("expected_start_time", "next_scheduled_start_time")}
    async with db.session_context(begin_transaction=True) as session:
        insert: Any = _insert_scheduled_flow_runs  # its decorator hides that it is a coroutine
        return list(await insert(session, runs))


@pytest.fixture(scope="module")
def gone(site: Site) -> tuple[UUID, list[UUID]]:
    """A deployment that lost its schedule while the scheduler was planning; the runs it then wrote."""
    file = site.store / "prefect" / "prefect.db"
    first = send(site.order(loaded("toy/gone", schedule={"cron": "* * * * *"})), site.server, start=False)
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}"}):
        again = partial(send, site.order(loaded("toy/gone")), site.server, start=False)
        written = asyncio.run(inserted_late(first.deployment_id, again))
    return first.deployment_id, written


def test_a_schedule_goes_when_the_recipe_has_none_any_more(site: Site, gone: tuple[UUID, list[UUID]]):
    deployment, written = gone
    assert len(written) > 50
    with site.server.client() as client:
        assert next_runs(client, [deployment]) == {deployment: None}
    assert wait_for_next_runs(site.server, [deployment], list, within_s=0).problem == ""


def test_a_run_that_a_former_schedule_planned_builds_nothing(site: Site, gone: tuple[UUID, list[UUID]]):
    deployment, _ = gone
    ended = site.runs(deployment, *ENDED)
    assert {(present(run.state).type, present(run.state).name) for run in ended} == {
        (StateType.CANCELLED, "Superseded")
    }
    assert "nothing was built: its schedule was replaced or removed 20" in present(
        present(ended[0].state).message
    )
    now = datetime.now(UTC)
    left = site.runs(deployment, *StateType)
    assert [
        run for run in left if present(run.expected_start_time) > now and present(run.state).is_scheduled()
    ] == []


def test_doctor_finds_the_server_that_was_started_from_the_store(site: Site, cli: Cli):
    done = cli("--store", site.store, "--json", "doctor")
    assert done.returncode == 0, done.stderr
    rows = server_rows(done)
    assert [row["status"] for row in rows.values()] == ["ok"] * 4
    assert rows["Prefect worker"]["found"] == "1 online in pool 'enginery'"


def test_a_recipe_of_every_minute_is_built_and_published_by_itself(site: Site):
    run = site.completed(site.answers["recipe"]["deployment_id"])
    assert run.auto_scheduled
    record = Client(str(site.store)).resolve("pub/every-minute@candidate")
    assert (record.number, record.verdict) == (1, "PASS")


def test_stale_versions_are_looked_for_by_itself(site: Site):
    run = site.completed(site.answers["stale"]["deployment_id"])
    assert run.auto_scheduled
    assert run.state is not None
    assert run.state.message == "0 versions are stale, 0 rebuilds sent"


@pytest.fixture(scope="module")
def broken(site: Site, cli: Cli) -> Finished:
    """The same server, whose database refuses scheduled runs from now on; what `submit` says to that.

    What was sent before has its runs planned.
    """
    with site.server.client() as client:
        before = [one.id for one in client.read_deployments()]
    assert wait_for_next_runs(site.server, before, list).problem == ""
    refuse = (
        "CREATE TRIGGER refuse BEFORE INSERT ON flow_run WHEN NEW.auto_scheduled "
        "BEGIN SELECT RAISE(ABORT, 'disk quota exceeded'); END"
    )
    with closing(sqlite3.connect(site.store / "prefect" / "prefect.db", timeout=60)) as database, database:
        database.execute(refuse)
    recipe = lay_out("schedule-never-runs", site.base / "late")
    recipe.write_text(recipe.read_text().replace("pub/every-minute", "pub/late"))
    to = ("--server", site.server.ui_url)
    return cli("--store", site.store, "submit", recipe, "--schedule-only", *to, PATH=site.path)


def test_submit_fails_where_nobody_runs_the_schedule(site: Site, broken: Finished):
    assert broken.returncode == 4
    assert "registered pub/late: " in broken.stdout
    assert "the schedule is registered, but the Prefect server at" in broken.stderr
    assert "IntegrityError: (sqlite3.IntegrityError) disk quota exceeded; no schedule fires" in broken.stderr


def test_without_the_servers_log_a_schedule_without_runs_is_noticed(site: Site, broken: Finished):
    with site.server.client() as client:
        assert unplanned(client, settled_s=0) == ["pub:late"]
        (late,) = [one for one in client.read_deployments() if one.name == "pub:late"]
    awaited = wait_for_next_runs(site.server, [late.id], list, within_s=1)
    assert awaited.problem.endswith("runs no schedule: it planned no run within 1 s")


@pytest.fixture(scope="module")
def warned(site: Site, broken: Finished) -> str:
    """What `up` has told once the scheduler failed often enough."""
    deadline = time.monotonic() + 60
    told = ""
    while "warning: Prefect's service schedule_deployments failed 3 times" not in told:
        assert time.monotonic() < deadline, told
        time.sleep(1)
        told = (site.base / "stderr").read_text()
    return told


def test_up_says_which_service_fails_and_of_what(warned: str):
    assert "IntegrityError: (sqlite3.IntegrityError) disk quota exceeded; no schedule fires" in warned


def test_doctor_says_which_service_fails(site: Site, warned: str, cli: Cli):
    done = cli("--store", site.store, "--json", "doctor")
    assert done.returncode == 4
    row = server_rows(done)["Prefect services"]
    assert row["status"] == "failing"
    assert "schedule_deployments failed" in row["found"]
    assert "disk quota exceeded; no schedule fires" in row["found"]
    assert str(site.store / "prefect" / "server.log") in done.stderr


def test_doctor_of_a_server_that_is_not_there_says_so(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "--json", "doctor", "--server", "http://127.0.0.1:1")
    assert done.returncode == 4
    assert server_rows(done)["Prefect server"]["status"] == "missing"
    assert "no Prefect server at http://127.0.0.1:1; start one with `enginery up`" in done.stderr
    assert cli("--store", tmp_path, "doctor").returncode == 0
