"""A Prefect server, pool and worker on this machine, and recipes sent to one anywhere."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import State, WorkerStatus
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from pipeline import process
from pipeline.errors import BackendUnavailable
from pipeline.host import service_env
from pipeline.registry_url import shown
from pipeline.tether import TETHERED
from recipes.errors import RecipeError
from recipes.load import Loaded
from recipes.schema import Schedule

POOL = "enginery"
"""Work pool that recipes are sent to."""

ENTRYPOINT = "pipeline.flows.release"
"""The flow as a module path: the worker imports it from the installed package, no code travels."""

REFUSED = "Refused"
"""Name of the failed state of a run that was built but did not pass its gate."""

START_WITHIN_S = 120.0
"""A server's first start writes its database; seen to take 7 to 15 s on two cores."""

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Prefect:
    """Where a server answers."""

    api_url: str

    @classmethod
    def at(cls, url: str) -> "Prefect":
        """The server at a URL, with or without the trailing `/api`."""
        return cls(f"{url.rstrip('/').removesuffix('/api')}/api")

    @property
    def ui_url(self) -> str:
        """What people open."""
        return self.api_url.removesuffix("/api")

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """A client of the server; BackendUnavailable unless it answers."""
        with temporary_settings({PREFECT_API_URL: self.api_url}), get_client(sync_client=True) as client:
            if client.api_healthcheck() is not None:
                raise BackendUnavailable(f"no Prefect server at {self.ui_url}; start one with `enginery up`")
            yield client


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What `enginery up` starts."""

    home: Path
    """Directory of the server's database and of the logs."""
    port: int
    runs: int = 1
    """Flow runs at once on this host."""

    @property
    def server(self) -> Prefect:
        """Where it will answer."""
        return Prefect.at(f"http://127.0.0.1:{self.port}")

    @contextmanager
    def running(self) -> Iterator[tuple[process.Service, ...]]:
        """Server and worker, started, healthy, and stopped at the end of the block; they never outlive us."""
        _require_free(self.port)
        self.home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            server = self._start(
                stack, "server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)
            )
            self._until(self._answers, server)
            worker = self._start(
                stack, "worker", "worker", "start", "--pool", POOL, "--type", "process",
                "--limit", str(self.runs), "--name", socket.gethostname(),
            )  # fmt: skip
            self._until(self._worker_is_online, server, worker)
            yield server, worker

    def _start(self, stack: ExitStack, name: str, *args: str) -> process.Service:
        service = process.start(
            [sys.executable, "-m", "prefect", *args], log=self.home / f"{name}.log", env=self._env()
        )
        stack.callback(service.stop)
        return service

    def _env(self) -> dict[str, str]:
        return service_env() | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            TETHERED: "1",
        }

    def _until(self, ready: Callable[[], bool], *services: process.Service) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not ready():
            for service in services:
                service.require()
            if time.monotonic() > deadline:
                logs = ", ".join(str(service.log) for service in services)
                raise BackendUnavailable(f"Prefect did not start within {START_WITHIN_S:g} s; see {logs}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            with self.server.client():
                return True
        except BackendUnavailable:
            return False

    def _worker_is_online(self) -> bool:
        with self.server.client() as client:
            if not _has_pool(client):  # the worker makes it
                return False
            workers = client.read_workers_for_work_pool(POOL)
        return any(worker.status == WorkerStatus.ONLINE for worker in workers)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise BackendUnavailable(
                f"port {port} cannot be used: {exc.strerror}; stop what has it or choose another with --port"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A recipe to send, and where its artifacts go."""

    loaded: Loaded
    store_url: str
    registry_url: str | None

    @property
    def deployment(self) -> str:
        """Name of the recipe's deployment: Prefect allows no slash, and no recipe's name has a colon."""
        return self.loaded.recipe.name.replace("/", ":")

    @property
    def parameters(self) -> dict[str, Any]:
        """The flow's parameters as JSON; anyone who can see the UI can read them, so no password is in them."""
        return {
            "recipe": self.loaded.recipe.model_dump(mode="json", exclude_none=True),
            "file": str(self.loaded.file.resolve()),
            "store_url": self.store_url,
            "registry_url": None if self.registry_url is None else shown(self.registry_url),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of sending a recipe."""

    name: str
    deployment_id: UUID
    flow_run_id: UUID | None
    """None if only the deployment was registered."""
    url: str
    """The page of the run, or of the deployment."""


def schedules(loaded: Loaded) -> list[DeploymentScheduleCreate]:
    """The recipe's schedule in Prefect's words; a cron expression it cannot read is a RecipeError."""
    schedule = loaded.recipe.schedule
    if schedule is None:
        return []
    return [DeploymentScheduleCreate(schedule=_cron(schedule, loaded), active=True)]


def _cron(schedule: Schedule, loaded: Loaded) -> CronSchedule:
    try:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    except ValidationError as exc:
        problems = [
            f"schedule.{error['loc'][0]}: {error['msg'].removeprefix('Value error, ')}, found {error['input']!r}"
            for error in exc.errors(include_url=False)
        ]
        raise RecipeError(loaded.file, problems) from None


def send(order: Order, server: Prefect, *, start: bool = True, entrypoint: str = ENTRYPOINT) -> Sent:
    """Registers the recipe as a deployment with its schedule, and starts a run of it unless told not to."""
    when = schedules(order.loaded)
    with server.client() as client:
        deployment_id = _register(client, order, when, entrypoint)
        if not start:
            url = f"{server.ui_url}/deployments/deployment/{deployment_id}"
            return Sent(name=order.loaded.recipe.name, deployment_id=deployment_id, flow_run_id=None, url=url)
        run = client.create_flow_run_from_deployment(deployment_id, name=order.loaded.recipe.name)
        return Sent(
            name=order.loaded.recipe.name,
            deployment_id=deployment_id,
            flow_run_id=run.id,
            url=f"{server.ui_url}/runs/flow-run/{run.id}",
        )


def _register(
    client: SyncPrefectClient, order: Order, when: list[DeploymentScheduleCreate], entrypoint: str
) -> UUID:
    recipe = order.loaded.recipe
    flow_id = client.create_flow_from_name(entrypoint.rpartition(".")[2])
    if not _has_pool(client):
        raise BackendUnavailable(
            f"no work pool {POOL!r} on this Prefect server; `enginery up` starts a worker that makes it"
        )
    return client.create_deployment(
        flow_id=flow_id,
        name=order.deployment,
        entrypoint=entrypoint,
        work_pool_name=POOL,
        parameters=order.parameters,
        schedules=when,
        description=f"{recipe.format}, {recipe.engine.backend}, tp {recipe.engine.tp}, pp {recipe.engine.pp}",
        tags=["enginery"],
        job_variables={"command": "python -m prefect.engine"},
    )


def _has_pool(client: SyncPrefectClient) -> bool:
    return any(pool.name == POOL for pool in client.read_work_pools())


def follow(sent: Sent, server: Prefect, tell: Callable[[State[Any]], None]) -> State[Any]:
    """Waits until the run has ended, telling each new state; returns the last."""
    assert sent.flow_run_id is not None
    seen = None
    with server.client() as client:
        while True:
            state = client.read_flow_run(sent.flow_run_id).state
            if state is not None and state.id != seen:
                seen = state.id
                tell(state)
                if state.is_final():
                    return state
            time.sleep(POLL_S)
