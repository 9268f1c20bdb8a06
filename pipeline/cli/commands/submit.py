"""up, submit: runs on a Prefect server, for shared machines and schedules."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import ADDRESS, COUNT, PATH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipeline.flows.deployments import Sent
    from pipeline.flows.prefect_server import Prefect
    from pipeline.flows.schedules import Awaited
    from pipeline.plan.planning import Draft

REFUSED_CODE = 3
FAILED_CODE = 1


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Port of API and UI."
)
@click.option("--runs", type=COUNT, default=1, show_default=True, help="Concurrent runs on this host.")
@click.pass_obj
def up(app: App, port: int, runs: int) -> None:
    """Start a Prefect server, a work pool and a worker; Ctrl-C stops them.

    Example: enginery up --port 4200
    """
    from pipeline.flows.prefect_server import POOL, START_WITHIN_S, Up  # Prefect costs a second to import
    from pipeline.flows.server_home import Home
    from pipeline.flows.server_watch import Watch

    store = app.site.store
    # before the server starts, whose directory is in the store
    store.prepare()
    home = Home(store.root)
    services = Up(home=home, port=port, runs=runs)
    app.out.say(f"starting Prefect, within {START_WITHIN_S:g} s; the first time takes longer")
    with services.running() as running:
        url = services.server.ui_url
        app.out.value(
            {"ui": url, "api": services.server.api_url, "pool": POOL, "logs": [str(s.log) for s in running]},
            text=f"{url} is up: pool {POOL!r}, {runs} concurrent run(s); send recipes with `enginery submit`",
            short=url,
        )
        # whoever started it from a script waits for this document
        app.out.flush()
        watch = Watch(services.server, home.log("server"))
        try:
            while True:
                for service in running:
                    service.require()
                for problem in watch.news():
                    app.out.warn(problem)
                time.sleep(1)
        except KeyboardInterrupt:
            app.out.say("stopping; running flows are cancelled, their finished steps are kept")


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--server", "url", type=ADDRESS, envvar="PREFECT_API_URL", default="http://127.0.0.1:4200",
              show_default=True, help="Prefect server.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait for the runs; the exit code is that of `enginery run`.")
@click.option(
    "--schedule-only", is_flag=True, help="Register the recipe and its schedule, and start no run now."
)
@click.pass_obj
def submit(app: App, recipe: Path, url: str, wait: bool, schedule_only: bool) -> int:
    """Send RECIPE to a Prefect server that `enginery up` started; its schedule goes with it.

    An invalid recipe is refused; if this host cannot build it, that is a warning, because the worker builds.

    Example: enginery submit recipes/demo/int4_awq_tp2.yaml --wait
    """
    from pipeline.flows.deployments import Order, send  # Prefect costs a second to import
    from pipeline.flows.prefect_server import Prefect

    if wait and schedule_only:
        raise click.UsageError("--wait needs a run, and --schedule-only starts none; choose one")
    drafts = app.drafts(recipe)
    for drafted in drafts if not app.out.quiet else ():
        _warn_of_lacking(app, drafted)
    server = Prefect.at(url)
    store_url = app.site.store.url
    sent = [
        send(
            Order(loaded=drafted.loaded, store_url=store_url, registry_url=app.registry_url),
            server,
            start=not schedule_only,
        )
        for drafted in drafts
    ]
    awaited = await_schedules(app, sent, server)
    # every run is reported, even where the schedules do not work
    codes = [report(app, item, server, awaited, wait=wait) for item in sent]
    require_planned(awaited, server)
    # the worst of several: refused is above failed, and that above done
    return max(codes)


def _warn_of_lacking(app: App, drafted: "Draft") -> None:
    problems = "; ".join(drafted.refusals.host)
    if problems:
        name = drafted.loaded.recipe.name
        app.out.warn(f"this host cannot build {name}: {problems}; the worker's host must be able to")


def await_schedules(app: App, sent: "Sequence[Sent]", server: "Prefect") -> "Awaited":
    """Waits until the server has planned the next runs of what has a schedule."""
    from pipeline.flows.schedules import wait_for_next_runs  # with the rest of Prefect
    from pipeline.flows.server_home import Home
    from pipeline.flows.server_watch import scheduler_failures

    home = Home(app.site.store.root)
    return wait_for_next_runs(server, [item.deployment_id for item in sent], scheduler_failures(server, home))


def require_planned(awaited: "Awaited", server: "Prefect") -> None:
    """Raises BackendUnavailable if the server does not run the registered schedule."""
    from pipeline.errors import BackendUnavailable  # pydantic: not for --help

    if awaited.problem:
        raise BackendUnavailable(
            f"the schedule is registered, but {awaited.problem}\n"
            f"  see `enginery doctor --server {server.ui_url}` and the server's log"
        )


def report(app: App, sent: "Sent", server: "Prefect", awaited: "Awaited | None" = None, *, wait: bool) -> int:
    """Prints what was sent and, when waiting, how the run ended; returns the exit code."""
    from pipeline.flows.deployments import REFUSED, follow  # with the rest of Prefect

    next_run, when = _next_run(sent, awaited)
    answer = {
        "name": sent.name,
        "deployment_id": sent.deployment_id,
        "flow_run_id": sent.flow_run_id,
        "url": sent.url,
        "next_run": None if next_run is None else next_run.isoformat(timespec="seconds"),
    }
    short = str(sent.flow_run_id or sent.deployment_id)
    if not wait:
        done = "sent" if sent.flow_run_id else "registered"
        app.out.value(answer, text=f"{done} {sent.name}: {sent.url}{when}", short=short)
        return 0
    app.out.say(f"{sent.name}: {sent.url}")
    state = follow(sent, server, lambda state: app.out.say(f"{sent.name}: {state.name}"))
    answer |= {"state": state.name, "message": state.message}
    app.out.value(answer, text=f"{sent.name}: {state.name}. {state.message or ''}".rstrip(), short=short)
    if state.is_completed():
        return 0
    return REFUSED_CODE if state.name == REFUSED else FAILED_CODE


def _next_run(sent: "Sent", awaited: "Awaited | None") -> tuple["datetime | None", str]:
    """When a schedule fires next, planned or not, and that in words; nothing without one."""
    from pipeline.flows.schedules import PLANS_AHEAD  # with the rest of Prefect

    if awaited is None:
        return None, ""
    if planned := awaited.starts.get(sent.deployment_id):
        return planned, f"; next run {planned.astimezone():%Y-%m-%d %H:%M %Z}"
    if (later := awaited.later.get(sent.deployment_id)) is None:
        return None, ""
    days = PLANS_AHEAD.days
    return (
        later,
        f"; next run {later:%Y-%m-%d %H:%M} {later.tzinfo}; the server plans runs of the next {days} days",
    )
