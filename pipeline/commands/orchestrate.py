"""up, submit: runs on a Prefect server, for those who share machines or build on a schedule."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.app import App

if TYPE_CHECKING:
    from pipeline.deployments import Sent
    from pipeline.server import Prefect

REFUSED_CODE = 3
FAILED_CODE = 1


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Port of API and UI."
)
@click.option(
    "--runs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once on this host."
)
@click.pass_obj
def up(app: App, port: int, runs: int) -> None:
    """Start a Prefect server, a work pool and a worker; Ctrl-C stops them.

    Example: enginery up --port 4200
    """
    from pipeline.server import POOL, Up  # Prefect costs a second to import

    store = app.site.store
    store.prepare()
    services = Up(home=store.root / "prefect", port=port, runs=runs)
    app.out.say("starting Prefect; the first time takes longer")
    with services.running() as running:
        url = services.server.ui_url
        app.out.value(
            {"ui": url, "api": services.server.api_url, "pool": POOL, "logs": [str(s.log) for s in running]},
            text=f"{url} is up: pool {POOL!r}, {runs} run(s) at once; send recipes with `enginery submit`",
            short=url,
        )
        app.out.flush()
        try:
            while True:
                for service in running:
                    service.require()
                time.sleep(1)
        except KeyboardInterrupt:
            app.out.say("stopping; runs under way are cancelled, their finished steps are kept")


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--server", "url", envvar="PREFECT_API_URL", default="http://127.0.0.1:4200", show_default=True,
              help="Prefect server.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait for the runs; the exit code is that of `enginery run`.")
@click.option("--schedule-only", is_flag=True, help="Register recipe and schedule, start nothing now.")
@click.pass_obj
def submit(app: App, recipe: Path, url: str, wait: bool, schedule_only: bool) -> int:
    """Send RECIPE to a Prefect server that `enginery up` started; its schedule goes with it.

    Example: enginery submit recipes/demo/int4_awq_tp2.yaml --wait
    """
    from pipeline.deployments import Order, send  # Prefect costs a second to import
    from pipeline.server import Prefect

    if wait and schedule_only:
        raise click.UsageError("--wait needs a run, and --schedule-only starts none; choose one")
    server = Prefect.at(url)
    store_url = app.site.store.url
    sent = [
        send(
            Order(loaded=loaded, store_url=store_url, registry_url=app.registry_url),
            server,
            start=not schedule_only,
        )
        for loaded, _ in app.plans(recipe)
    ]
    return max(report(app, one, server, wait=wait) for one in sent)


def report(app: App, sent: "Sent", server: "Prefect", *, wait: bool) -> int:
    """Tells what was sent and, when waiting, how it ended; returns the exit code."""
    from pipeline.deployments import REFUSED, follow  # with the rest of Prefect

    answer = {
        "name": sent.name,
        "deployment_id": sent.deployment_id,
        "flow_run_id": sent.flow_run_id,
        "url": sent.url,
    }
    short = str(sent.flow_run_id or sent.deployment_id)
    if not wait:
        done = "sent" if sent.flow_run_id else "registered"
        app.out.value(answer, text=f"{done} {sent.name}: {sent.url}", short=short)
        return 0
    app.out.say(f"{sent.name}: {sent.url}")
    state = follow(sent, server, lambda state: app.out.say(f"{sent.name}: {state.name}"))
    answer |= {"state": state.name, "message": state.message}
    app.out.value(answer, text=f"{sent.name}: {state.name}. {state.message or ''}".rstrip(), short=short)
    if state.is_completed():
        return 0
    return REFUSED_CODE if state.name == REFUSED else FAILED_CODE
