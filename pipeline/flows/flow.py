"""A run as a Prefect flow: one flow per plan, one task per step, and reports in the UI."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL
from prefect.states import Cancelled, Completed, Failed

from artifacts.errors import PolicyRefused
from artifacts.registry.registry import Registry
from pipeline.errors import EXIT_CODES, GateFailed
from pipeline.evaluate.gate import Verdict
from pipeline.flows import reports
from pipeline.flows.deployments import REFUSED, restore_password, send_rebuilds
from pipeline.flows.prefect_server import Prefect
from pipeline.flows.reports import headline, progress_key, slug
from pipeline.flows.schedules import SUPERSEDED, drop_superseded, superseded
from pipeline.plan.plan import Plan
from pipeline.plan.planning import pending, plan_one
from pipeline.process.tether import tie_if_asked
from pipeline.rebuild.find_stale import StaleQuery, list_stale_versions
from pipeline.run import publish
from pipeline.run.release import Outcome, judge, run_plan
from pipeline.run.workspace import Workspace
from pipeline.step.realize import Listener, Made, Site, realize
from pipeline.step.step import Step
from pipeline.units import duration
from recipes.load import Loaded
from recipes.schema import Recipe

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State

PUBLISH_EVERY_S = 1.0
"""Progress goes to the server at most this often."""

RETRY_AFTER_S = [60.0, 600.0]
"""Waits before a step that downloads is tried again; no other step is, because it would fail the same way."""


@flow(name="release", flow_run_name="{recipe.name}", persist_result=False)
def release(recipe: Recipe, file: str, store_url: str, registry_url: str | None = None) -> Any:
    """Builds, gates and publishes what the recipe describes; returns `name:version`."""
    # parameters carry no password, so that the worker's own environment has to supply it
    registry_url = restore_password(registry_url, os.environ.get("ENGINERY_REGISTRY"))
    workspace = Workspace(store_url, registry_url, get_run_logger().warning)
    with workspace.announcing():
        return reported(
            lambda: run_as_tasks(
                plan_one(Loaded(recipe, Path(file)), workspace.site), workspace.site, workspace.registry
            )
        )


@flow(name="rebuild_stale", persist_result=False)
def rebuild_stale(asked: dict[str, Any], store_url: str, registry_url: str | None, server_url: str) -> Any:
    """Looks for published engines that no longer match, shows them, and starts a run for each rebuild."""
    # before anything else: a worker that is killed must take this process along
    tie_if_asked()
    if (refused := superseded_run()) is not None:
        return refused
    log, registry_url = get_run_logger(), restore_password(registry_url, os.environ.get("ENGINERY_REGISTRY"))
    workspace = Workspace(store_url, registry_url, log.warning)
    with workspace.announcing():
        findings = [
            finding
            for finding in list_stale_versions(StaleQuery.of(asked), workspace, log.info)
            if finding.reasons
        ]
    # also where nothing is stale, else the page would show what an earlier run found
    create_table_artifact(
        [reports.stale_row(finding) for finding in findings],
        key="stale",
        description=f"{len(findings)} stale versions",
    )
    sent = send_rebuilds(findings, store_url, registry_url, Prefect.at(server_url))
    for finding in sent:
        log.info("sent %s: %s", finding.name, finding.url)
    return Completed(message=f"{len(findings)} versions are stale, {len(sent)} rebuilds sent")


def reported(work: Callable[[], Outcome]) -> Any:
    """What a flow returns for `work`: a state whose message says what was published, or why nothing was."""
    tie_if_asked()
    if (refused := superseded_run()) is not None:
        return refused
    try:
        outcome = work()
    except (GateFailed, PolicyRefused) as exc:
        # a verdict is no failure of the build, and has a name of its own in the UI
        return Failed(name=REFUSED, message=str(exc), data=exc)
    except tuple(EXIT_CODES) as exc:
        return Failed(message=headline(exc), data=exc)
    version = f"{outcome.name}:{outcome.version}"
    return Completed(message=f"published {version} as @{outcome.alias}", data=version)


def superseded_run() -> "State[None] | None":
    """How a run ends that its deployment's former schedule planned; deletes its successors."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    # a run that somebody started by hand is meant, whatever the schedule
    if run is None or run.deployment_id is None or not run.auto_scheduled:
        return None
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(run.deployment_id)
        if not superseded(run, deployment):
            return None
        # the server may have written several runs of the former schedule
        drop_superseded(client, deployment)
    moment = f"{deployment.updated:%Y-%m-%d %H:%M:%S %Z}, after this run was planned and before it was due"
    return Cancelled(
        name=SUPERSEDED, message=f"nothing was built: its schedule was replaced or removed {moment}"
    )


def run_as_tasks(plan: Plan, site: Site, registry: Registry) -> Outcome:
    """Runs the plan with every step as a task; the edges between tasks are the inputs of the steps."""
    report_plan(plan, site)
    states: dict[str, State[Made]] = {}

    def make(step: Step) -> Made:
        # a trial of a search may fail, and the steps behind it are still made
        before = [states[key] for key in step.inputs.values() if key in states and states[key].is_completed()]
        state = as_task(step)(step, site, wait_for=before, return_state=True)
        states[step.key] = state
        artifact: Made = state.result()
        if step.kind == "evaluation":
            # here, because `run_plan` raises for a verdict other than PASS, which is to be seen too
            report_verdict(plan, judge(plan, site).verdict)
        return artifact

    outcome = run_plan(plan, site, registry, make)
    report_outcome(plan, site, outcome)
    return outcome


def as_task(step: Step) -> Callable[..., Any]:
    """The task that makes a step, under the step's name; its tag is what concurrency limits count."""
    downloads = bool(step.commit)
    return make_step.with_options(
        name=step.kind,
        task_run_name=f"{step.name} {step.key[:12]}",
        tags={"enginery-download" if downloads else "enginery-build"},
        retries=len(RETRY_AFTER_S) if downloads else 0,
        retry_delay_seconds=RETRY_AFTER_S if downloads else 0,
    )


# without Prefect's cache of results: the store is the cache
@task(cache_policy=NO_CACHE, persist_result=False)
def make_step(step: Step, site: Site) -> Any:
    """Makes one step's artifact exist; an error that people can act on is the message of the failed task."""
    report = Progress(step)
    try:
        return realize(step, site, report)
    except tuple(EXIT_CODES) as exc:
        report.failed(step, exc)
        if step.commit:
            raise  # Prefect retries only what is raised
        return Failed(message=headline(exc), data=exc)


class Progress(Listener):
    """Shows one step as a progress artifact, and says in the run's log what happens to it."""

    def __init__(self, step: Step) -> None:
        self.log = get_run_logger()
        self.since = time.monotonic()
        self.sent_at = 0.0
        created = create_progress_artifact(
            0.0, key=progress_key(step), description=f"{step.name}: {step.what}"
        )
        self.artifact = cast("UUID", created)  # not awaitable outside an event loop

    def progressed(self, step: Step, done: int, total: int, unit: str) -> None:
        """Moves the bar, at most once a second."""
        now = time.monotonic()
        # a step that has no total yet cannot move a bar
        if total > 0 and now - self.sent_at >= PUBLISH_EVERY_S:
            self.sent_at = now
            remaining = duration((total - done) * (now - self.since) / done) if done else "unknown"
            self._send(100 * done / total, f"{step.kind}: {done:,} of {total:,} {unit}, eta {remaining}")

    def waiting(self, step: Step, whom: str) -> None:
        """Prints which run the step waits for."""
        self.log.info("%s %s: waits for %s, to make it", step.kind, step.key, whom)

    def damaged(self, step: Step, problems: str) -> None:
        """Warns that a stored artifact is rebuilt."""
        self.log.warning("stored files of %s are damaged and will be built again: %s", step.key, problems)

    def remarked(self, step: Step, text: str) -> None:
        """Prints a warning of the build."""
        self.log.warning("%s %s: %s", step.kind, step.key, text)

    def finished(self, artifact: Made) -> None:
        """Fills the bar."""
        took = "cached" if artifact.cached else f"built in {duration(artifact.manifest.seconds)}"
        self.log.info("%s %s %s", artifact.step.kind, artifact.step.key, took)
        for text in artifact.remarks():
            self.log.warning("%s", text)
        self._send(100.0, f"{artifact.step.kind}: {artifact.step.what}; {took}")

    def failed(self, step: Step, error: Exception) -> None:
        """Says why, with the end of the step's log."""
        self.log.error("%s: %s", type(error).__name__, error)

    def _send(self, percent: float, description: str) -> None:
        try:
            update_progress_artifact(self.artifact, percent, description)
        except httpx.HTTPError as exc:  # a server that is away for a moment must not cost a build
            self.log.warning("progress of %.0f %% was not delivered: %s", percent, exc)


def report_plan(plan: Plan, site: Site) -> None:
    """Shows the steps, and which of them are to be built."""
    to_run = {step.key for step in pending(plan, site)}
    create_table_artifact(
        reports.plan_rows(plan, to_run),
        key=f"plan-{slug(plan.recipe.name)}",
        description=f"{plan.recipe.name}: {len(to_run)} of {len(plan.all_steps)} steps to build",
    )


def report_verdict(plan: Plan, verdict: Verdict) -> None:
    """Shows the gate's checks, passed or not."""
    create_table_artifact(
        reports.verdict_rows(verdict),
        key=f"verdict-{slug(plan.recipe.name)}",
        description=f"{plan.recipe.name}: {verdict.outcome} over {verdict.samples} samples"
        + (f", scored by {verdict.scored}/" if verdict.scored else "")
        + (f", each begins with {verdict.begin}" if verdict.begin else ""),
    )


def report_outcome(plan: Plan, site: Site, outcome: Outcome) -> None:
    """Shows what was published: its metrics, how it was tuned, where it came from and how to go on."""
    name = slug(outcome.name)
    create_table_artifact(
        reports.metric_rows(publish.metrics(plan, site, outcome.judged)),
        key=f"metrics-{name}",
        description=f"Metrics of {outcome.name}:{outcome.version}",
    )
    for step in plan.steps:
        if step.kind == "quantized_checkpoint":
            rows = reports.coverage_rows(site.store.file(step.key, "coverage.json").parent)
            create_table_artifact(rows, key=f"coverage-{name}", description=f"Linears of {outcome.name}")
    if plan.trials:
        page = reports.tuning_page(site.store.directory(outcome.engine_key) / "tuning")
        create_markdown_artifact(page, key=f"tuning-{name}", description=f"Points tried for {outcome.name}")
    page = reports.version_page(outcome, str(PREFECT_UI_URL.value()))
    create_markdown_artifact(page, key=f"version-{name}", description=f"{outcome.name}:{outcome.version}")
