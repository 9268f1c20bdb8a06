"""A Prefect server, a work pool and a worker on this machine."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Crashed

from pipeline.errors import BackendUnavailable
from pipeline.flows.server_home import Home
from pipeline.flows.server_log import DATE_FORMAT
from pipeline.process import process
from pipeline.process.host import service_env
from pipeline.process.tether import TETHERED

POOL = "enginery"
"""Work pool that recipes are sent to."""

TAG = "enginery"
"""Tag of our deployments on a server that may have others."""

START_WITHIN_S = 120.0
"""A server's first start writes its database; seen to take 7 to 15 s on two cores."""

CANCEL_WITHIN_S = 15.0
"""Seen: 3 to 6 s until a worker has killed a run's process and said so."""

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
        """Address of the UI."""
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

    home: Home
    port: int
    runs: int = 1
    """Flow runs at once on this host."""

    @property
    def server(self) -> Prefect:
        """Where it will answer."""
        return Prefect.at(f"http://127.0.0.1:{self.port}")

    @contextmanager
    def running(self) -> Iterator[tuple[process.Service, ...]]:
        """Server and worker, started, healthy, and stopped at the end of the block; they never outlive us.

        Runs that are under way at the end are cancelled: stopping the worker alone kills them and leaves them
        `Running` in the database for ever.
        """
        _require_free(self.port)
        self.home.path.mkdir(parents=True, exist_ok=True)
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
            # last: other commands take the file as a sign of a server that is ready
            self.home.address.write_text(self.server.api_url)
            # callbacks run in reverse: the address goes before the processes do
            stack.callback(self.home.address.unlink)
            yield server, worker
            # while the worker still runs, which has to end their processes
            self._cancel_runs()

    def _start(self, stack: ExitStack, name: str, *args: str) -> process.Service:
        service = process.start(
            [sys.executable, "-m", "prefect", *args], log=self.home.log(name), env=self._env()
        )
        stack.callback(service.stop)
        return service

    def _env(self) -> dict[str, str]:
        return service_env() | {
            # COMMAND starts `python`: it must be this environment's
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PREFECT_HOME": str(self.home.path),
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": DATE_FORMAT,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            TETHERED: "1",  # they die with this process
        }

    def _until(self, ready: Callable[[], bool], *services: process.Service) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not ready():
            # a process that died will never get ready: its log says why, sooner than the deadline
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
            return online_workers(client) > 0

    def _cancel_runs(self) -> None:
        deadline = time.monotonic() + CANCEL_WITHIN_S
        with self.server.client() as client:
            while (runs := _active_runs(client)) and time.monotonic() < deadline:
                for run in runs:  # schedules fire meanwhile
                    # those that are cancelling already are only waited for
                    if run.state_type != StateType.CANCELLING:
                        client.set_flow_run_state(run.id, Cancelling(message="`enginery up` was stopped"))
                time.sleep(POLL_S)
            for run in runs:  # of a worker that is gone
                client.set_flow_run_state(run.id, Crashed(message="its worker is gone"), force=True)


def _active_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs that have, or are about to have, a process on a worker of the pool."""
    types = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=types)),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # a server that ended lately leaves its port in TIME_WAIT, which must not count as taken
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise BackendUnavailable(
                f"port {port} cannot be used: {exc.strerror}; stop what has it or choose another with --port"
            ) from None


def has_pool(client: SyncPrefectClient) -> bool:
    """Whether a worker has made our pool."""
    return any(pool.name == POOL for pool in client.read_work_pools())


def online_workers(client: SyncPrefectClient) -> int:
    """Workers of our pool that have been heard of lately."""
    if not has_pool(client):  # a worker makes it
        return 0
    workers = client.read_workers_for_work_pool(POOL)
    return sum(worker.status == WorkerStatus.ONLINE for worker in workers)
