"""Whether a Prefect server does its work: answers, has a worker, plans runs, and no service of it fails."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx

from pipeline.errors import BackendUnavailable
from pipeline.flows.prefect_server import POOL, Prefect, online_workers
from pipeline.flows.schedules import HORIZON, PLANNED_WITHIN_S, Active, active, unplanned
from pipeline.flows.server_home import Home
from pipeline.flows.server_log import WINDOW, Failing, failing_services

LOG_EVERY_S = 5.0
SCHEDULES_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class PartState:
    """The state of one part of a server."""

    what: str
    status: str
    """`ok`, `missing`, or `failing`."""
    told: str


@dataclass(slots=True)
class Watch:
    """Reports each problem of a server that we started, once."""

    server: Prefect
    log: Path
    told: set[str] = field(default_factory=set)
    next_log: float = 0.0
    # the first look after a minute: a server that just started has yet to plan its runs
    next_schedules: float = field(default_factory=lambda: time.monotonic() + SCHEDULES_EVERY_S)

    def news(self) -> list[str]:
        """Problems that are new since the last call; cheap enough to call every second."""
        news = [(key, text) for key, text in self._problems() if key not in self.told]
        self.told |= {key for key, _ in news}
        return [text for _, text in news]

    def _problems(self) -> Iterator[tuple[str, str]]:
        now = time.monotonic()
        if now >= self.next_log:
            self.next_log = now + LOG_EVERY_S
            for service in _failing(self.log):
                yield (
                    # the key has no count and no time, which grow with each failure and would be news again
                    f"{service.service} {service.last.error}",
                    f"Prefect's service {service}; log: {self.log}",
                )
        if now >= self.next_schedules:
            self.next_schedules = now + SCHEDULES_EVERY_S
            state = _schedules(self.server)
            if state.status != "ok":
                yield state.told, f"{state.told}; log: {self.log}"


def inspect_server(server: Prefect, log: Path | None) -> list[PartState]:
    """The state of a server: its API, its worker, its schedules and, where it is on this host, its log."""
    try:
        with server.client() as client:
            version, workers = client.api_version(), online_workers(client)
    except (BackendUnavailable, httpx.HTTPError) as exc:
        return [PartState("Prefect server", "missing", str(exc))]
    worker = (
        PartState("Prefect worker", "ok", f"{workers} online in pool {POOL!r}")
        if workers
        else PartState(
            "Prefect worker", "missing", f"none is online in pool {POOL!r}; `enginery up` starts one"
        )
    )
    server_found = PartState("Prefect server", "ok", f"{server.ui_url}, Prefect {version}")
    return [server_found, worker, _schedules(server), *_services(log)]


def scheduler_failures(server: Prefect, home: Home) -> Callable[[], list[str]]:
    """What its log says of the scheduler from now on, if the server was started from this store."""
    since = _now()

    def problems() -> list[str]:
        # a server of another store or host: this log is not its own
        if home.api_url() != server.api_url:
            return []
        return [
            str(service)
            for service in failing_services(home.log("server"), since, times=2)
            if service.schedules
        ]

    return problems


def _failing(log: Path) -> list[Failing]:
    return failing_services(log, _now() - WINDOW)


def _now() -> datetime:
    # whole seconds, as the log has them: an entry of this very second counts
    return datetime.now().replace(microsecond=0)  # noqa: DTZ005 logs are in the host's time, without a zone


def _services(log: Path | None) -> list[PartState]:
    if log is None:
        return []
    failing = _failing(log)
    if not failing:
        return [PartState("Prefect services", "ok", f"none fails repeatedly, says {log}")]
    return [PartState("Prefect services", "failing", f"{'; '.join(map(str, failing))}; log: {log}")]


def _schedules(server: Prefect) -> PartState:
    subject = "Prefect schedules"
    try:
        with server.client() as client:
            deployments, waiting = active(client), unplanned(client)
    except (BackendUnavailable, httpx.HTTPError) as exc:
        return PartState(subject, "failing", f"the Prefect server does not answer: {exc}")
    if waiting:
        problem = (
            f"the scheduler has planned no run of {', '.join(waiting)}, though their schedules are active"
        )
        return PartState(subject, "failing", problem)
    return PartState(subject, "ok", _describe_schedules(deployments))


def _describe_schedules(deployments: Active) -> str:
    total = len(deployments.settled) + deployments.young + deployments.later
    parts = (
        [f"{deployments.young} registered less than {PLANNED_WITHIN_S:g} s ago"] if deployments.young else []
    )
    parts += [f"{deployments.later} due in more than {HORIZON.days} days"] if deployments.later else []
    return ", ".join([f"{total} active", *(parts or ["their next runs are planned"])])
