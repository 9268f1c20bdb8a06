"""Recipes sent to a Prefect server: one deployment per recipe, with its schedule, and runs of it."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import State
from prefect.client.schemas.schedules import CronSchedule
from sqlalchemy.engine import make_url

from pipeline.errors import BackendUnavailable
from pipeline.flows.prefect_server import POLL_S, POOL, TAG, Prefect, has_pool
from recipes.load import Loaded
from recipes.schema import Schedule

if TYPE_CHECKING:
    from pipeline.rebuild.version_survey import Finding

ENTRYPOINT = "pipeline.flows.release"
"""The flow as a module path: the worker imports it from the installed package, no code travels."""

STALE = "pipeline.flows.rebuild_stale"
"""The flow that looks for stale versions and sends their rebuilds."""

COMMAND = "python -m prefect.engine"
"""The command that a worker starts for a run; Prefect's default first prepares a workspace, for seconds."""

REFUSED = "Refused"
"""Name of the failed state of a run that was built but did not pass its gate."""


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
        """The flow's parameters as JSON; the UI shows them, so they contain no password."""
        return {
            "recipe": self.loaded.recipe.model_dump(mode="json", exclude_none=True, by_alias=True),
            # absolute: a worker has another working directory
            "file": str(self.loaded.file.resolve()),
            "store_url": self.store_url,
            "registry_url": None if self.registry_url is None else public_url(self.registry_url),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A recipe that was sent: its deployment and its run."""

    name: str
    deployment_id: UUID
    flow_run_id: UUID | None
    """None if only the deployment was registered."""
    url: str
    """The page of the run, or of the deployment."""


def schedules(schedule: Schedule | None) -> list[DeploymentScheduleCreate]:
    """A schedule as Prefect's type."""
    if schedule is None:
        return []
    cron = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    return [DeploymentScheduleCreate(schedule=cron, active=True)]


def send(order: Order, server: Prefect, *, start: bool = True, entrypoint: str = ENTRYPOINT) -> Sent:
    """Registers the recipe as a deployment with its schedule, and starts a run of it unless told not to."""
    with server.client() as client:
        deployment_id = _register(client, order, entrypoint)
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


def send_rebuilds(
    findings: Iterable["Finding"], store_url: str, registry_url: str | None, server: Prefect
) -> list[Sent]:
    """Starts a run for each stale version whose rebuild was planned; its recipe's schedule stays as it is."""
    orders = [
        Order(loaded=finding.rebuild.loaded, store_url=store_url, registry_url=registry_url)
        for finding in findings
        if finding.rebuild is not None
    ]
    # registered again with the recipe's own schedule, so that this one stays
    return [send(order, server) for order in orders]


def schedule_stale(
    query: Mapping[str, Any], store_url: str, registry_url: str | None, schedule: Schedule, server: Prefect
) -> Sent:
    """Registers the flow that rebuilds what is stale, and its schedule; starts nothing."""
    parameters = {
        "asked": dict(query),
        "store_url": store_url,
        "registry_url": None if registry_url is None else public_url(registry_url),
        "server_url": server.api_url,
    }
    with server.client() as client:
        deployment_id = _deploy(
            client, STALE, "stale", parameters, schedules(schedule), "rebuilds what is stale"
        )
    page = f"{server.ui_url}/deployments/deployment/{deployment_id}"
    return Sent(name="stale", deployment_id=deployment_id, flow_run_id=None, url=page)


def _register(client: SyncPrefectClient, order: Order, entrypoint: str) -> UUID:
    recipe, engine = order.loaded.recipe, order.loaded.recipe.engine
    description = f"{recipe.precision}, {engine.backend}, tp {engine.tp}, pp {engine.pp}"
    when = schedules(recipe.schedule)
    return _deploy(client, entrypoint, order.deployment, order.parameters, when, description)


def _deploy(
    client: SyncPrefectClient,
    entrypoint: str,
    name: str,
    parameters: dict[str, Any],
    when: list[DeploymentScheduleCreate],
    description: str,
) -> UUID:
    """Registers a flow of ours under a name; the worker imports it, no code travels."""
    # Prefect knows a flow by its name, without the module
    flow_id = client.create_flow_from_name(entrypoint.rpartition(".")[2])
    if not has_pool(client):
        raise BackendUnavailable(
            f"no work pool {POOL!r} on this Prefect server; `enginery up` starts a worker, which creates it"
        )
    return client.create_deployment(
        flow_id=flow_id,
        name=name,
        entrypoint=entrypoint,
        work_pool_name=POOL,
        parameters=parameters,
        schedules=when,
        description=description,
        tags=[TAG],
        job_variables={"command": COMMAND},
    )


def follow(sent: Sent, server: Prefect, tell: Callable[[State[Any]], None]) -> State[Any]:
    """Waits until the run has ended, telling each new state; returns the last."""
    assert sent.flow_run_id is not None
    seen = None
    with server.client() as client:
        while True:
            state = client.read_flow_run(sent.flow_run_id).state
            # a state's id: the same kind of state may come twice
            if state is not None and state.id != seen:
                seen = state.id
                tell(state)
                if state.is_final():
                    return state
            time.sleep(POLL_S)


def public_url(url: str) -> str:
    """The URL without password, and with a database file by its absolute path: safe to send and to show."""
    # drivers take a password from the query, too
    parsed = make_url(url)._replace(password=None).difference_update_query(["password", "sslpassword"])
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
    # nothing is left to hide; True would put asterisks into a URL that is used
    return parsed.render_as_string(hide_password=False)


def restore_password(url: str | None, own: str | None) -> str | None:
    """`url`, or `own` where that is the same database and has the password."""
    # another database must not get this password
    return own if own is not None and url == public_url(own) else url
