"""Schedules on a Prefect server: when their next runs come, and whether the server plans any."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterCreatedBy,
    FlowRunFilterDeploymentId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from pipeline.flows.prefect_server import POLL_S, TAG, Prefect
from recipes.cron import fires_after

PLANNED_WITHIN_S = 75.0
"""A working server plans a new schedule's runs within 5 s, or in its round over all, once a minute."""

PLANS_AHEAD = timedelta(days=100)
"""A server plans runs of so long a time, unless it was told otherwise."""

HORIZON = timedelta(days=90)
"""Who fires within this must have a run planned: with a margin to what servers plan."""

SUPERSEDED = "Superseded"
"""Name of the cancelled state of a run whose schedule had been replaced before it fell due."""

PAGE = 200
"""Deployments or runs that a server answers at once."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """What came of waiting for a server to plan runs."""

    starts: Mapping[UUID, datetime]
    """Deployment -> start of its next run."""
    problem: str = ""
    """Why not every deployment has one; empty where all have, or are not due within the horizon."""
    later: Mapping[UUID, datetime] = field(default_factory=dict)
    """Deployment -> first time that its schedule fires, in its zone, where that is beyond the horizon."""


def next_runs(client: SyncPrefectClient, deployments: Iterable[UUID]) -> dict[UUID, datetime | None]:
    """When the next planned run of each deployment starts; None where the server has planned none.

    Runs of schedules that a deployment had before are not counted.
    """
    starts: dict[UUID, datetime | None] = {}
    for deployment in deployments:
        run_filter = _planned([deployment])
        # runs name the schedule that made them, and a schedule that is sent again has a new id
        run_filter.created_by = FlowRunFilterCreatedBy(id_=_schedules(client.read_deployment(deployment)))
        runs = client.read_flow_runs(
            flow_run_filter=run_filter, sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, limit=1
        )
        starts[deployment] = runs[0].next_scheduled_start_time if runs else None
    return starts


def superseded(run: FlowRun, deployment: DeploymentResponse) -> bool:
    """Whether a run fell due after its schedule had been replaced or removed.

    A server deletes the planned runs of a deployment that is sent again, but its scheduler may have read the
    schedule of before and write its runs afterwards, with the recipe of before.
    """
    return (
        run.auto_scheduled
        and run.created_by is not None
        and run.created_by.id not in _schedules(deployment)
        and run.expected_start_time is not None
        and deployment.updated is not None
        and run.expected_start_time > deployment.updated
    )


def drop_superseded(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    """Deletes the planned runs of schedules that a deployment had before."""
    # one page is enough: the next superseded run deletes its own successors
    for run in client.read_flow_runs(flow_run_filter=_planned([deployment.id]), limit=PAGE):
        if superseded(run, deployment):
            with suppress(ObjectNotFound):  # sent again meanwhile
                client.delete_flow_run(run.id)


def wait_for_next_runs(
    server: Prefect,
    deployments: Iterable[UUID],
    failing: Callable[[], list[str]],
    within_s: float = PLANNED_WITHIN_S,
) -> Awaited:
    """Waits until the server has planned runs for each deployment whose schedule fires within its horizon.

    Gives up once `failing` names failures of its scheduler, or the time is over.
    """
    deadline = time.monotonic() + within_s
    with server.client() as client:
        # read once: what is sent meanwhile is waited for by whoever sends it
        now, read = datetime.now(UTC), [client.read_deployment(deployment) for deployment in deployments]
        # beyond the horizon no run need be planned, and waiting for one could only fail
        expecting = [deployment.id for deployment in read if _expects_runs(deployment, now)]
        later = {
            deployment.id: first
            for deployment in read
            if deployment.id not in expecting and (first := _first(deployment, now))
        }
        while True:
            starts = {
                deployment: start
                for deployment, start in next_runs(client, expecting).items()
                if start is not None
            }
            if len(starts) == len(expecting):
                return Awaited(starts, later=later)
            reasons = failing()
            if reasons or time.monotonic() > deadline:
                problem = "; ".join(reasons) or f"it planned no run within {within_s:g} s"
                problem = f"the Prefect server at {server.ui_url} runs no schedule: {problem}"
                return Awaited(starts, problem, later)
            time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Active:
    """Our deployments that have an active schedule."""

    settled: tuple[DeploymentResponse, ...]
    """Due within the horizon, and unchanged for long enough to have runs planned."""
    young: int
    """Due within the horizon, and registered or changed since."""
    later: int
    """Not due within the horizon."""


def active(client: SyncPrefectClient, settled_s: float = PLANNED_WITHIN_S) -> Active:
    """What has an active schedule, by whether the server must have planned its runs."""
    now = datetime.now(UTC)
    scheduled = [deployment for deployment in _read_deployments(client, None) if _is_active(deployment)]
    due = [deployment for deployment in scheduled if _expects_runs(deployment, now)]
    # a young one may still get its runs in the server's next round
    settled = tuple(
        deployment for deployment in due if _changed(deployment) < now - timedelta(seconds=settled_s)
    )
    return Active(settled=settled, young=len(due) - len(settled), later=len(scheduled) - len(due))


def unplanned(client: SyncPrefectClient, settled_s: float = PLANNED_WITHIN_S) -> list[str]:
    """Names of those of which the server has planned no run."""
    # one question for all, instead of one per deployment
    planned = {deployment.id for deployment in _read_deployments(client, _planned(None))}
    return sorted(
        deployment.name for deployment in active(client, settled_s).settled if deployment.id not in planned
    )


def _read_deployments(client: SyncPrefectClient, having: FlowRunFilter | None) -> list[DeploymentResponse]:
    """Every deployment of ours, or those that have a run of some kind."""
    filter_ = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    deployments: list[DeploymentResponse] = []
    while True:
        page = client.read_deployments(
            deployment_filter=filter_, flow_run_filter=having, limit=PAGE, offset=len(deployments)
        )
        deployments += page
        if len(page) < PAGE:
            return deployments


def _planned(deployments: list[UUID] | None) -> FlowRunFilter:
    """Runs to come that a schedule made."""
    return FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployments) if deployments else None,
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        # runs that somebody started by hand wait in the same state
        tags=FlowRunFilterTags(all_=["auto-scheduled"]),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(after_=datetime.now(UTC)),
    )


def _schedules(deployment: DeploymentResponse) -> list[UUID]:
    return [schedule.id for schedule in deployment.schedules]


def _changed(deployment: DeploymentResponse) -> datetime:
    return deployment.updated or datetime.now(UTC)  # unknown: as if just now


def _expects_runs(deployment: DeploymentResponse, now: datetime) -> bool:
    return not deployment.paused and any(_fires_soon(schedule, now) for schedule in deployment.schedules)


def _is_active(deployment: DeploymentResponse) -> bool:
    return not deployment.paused and any(schedule.active for schedule in deployment.schedules)


def _first(deployment: DeploymentResponse, now: datetime) -> datetime | None:
    """When the first of a deployment's active cron schedules fires."""
    if deployment.paused:
        return None
    crons = [entry.schedule for entry in deployment.schedules if entry.active]
    zoned = [(entry.cron, entry.timezone or "UTC") for entry in crons if isinstance(entry, CronSchedule)]
    return min((first for cron, zone in zoned if (first := fires_after(cron, zone, now))), default=None)


def _fires_soon(schedule: DeploymentSchedule, now: datetime) -> bool:
    """Whether an active schedule fires within the horizon; a recurrence rule may have ended, and need not."""
    if not schedule.active:
        return False
    if isinstance(schedule.schedule, CronSchedule):
        first = fires_after(schedule.schedule.cron, schedule.schedule.timezone or "UTC", now)
        return first is not None and first < now + HORIZON
    # an interval that is longer may fire within the horizon, but need not
    return isinstance(schedule.schedule, IntervalSchedule) and schedule.schedule.interval < HORIZON
