"""registry stale: published engines that no longer match, and the cost of rebuilding them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import ADDRESS, MOST_DAYS, PATH

if TYPE_CHECKING:
    from pipeline.rebuild.find_stale import StaleQuery
    from pipeline.rebuild.version_survey import Finding


def cron(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A cron expression that fires, or a usage error."""
    from recipes.cron import check_cron  # only with a schedule

    try:
        return None if value is None else check_cron(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--pools",
    type=PATH,
    help="YAML file of the pools that serve; default: this host.",
)
@click.option(
    "--gate-max-age",
    "gate_days",
    type=click.IntRange(1, MOST_DAYS),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="Days that an accuracy verdict stays valid.",
)
@click.option("--all", "every", is_flag=True, help="Every version, not only aliased and newest ones.")
@click.option("--offline", is_flag=True, help="Do not ask the hub for newer commits.")
@click.option(
    "--write",
    "folder",
    type=PATH,
    help="Write a recipe for each rebuild into this directory.",
)
@click.option("--submit", is_flag=True, help="Send the rebuilds to a Prefect server.")
@click.option("--schedule", metavar="CRON", callback=cron,
              help="Run this check and its rebuilds on a Prefect server, on a schedule in UTC.")  # fmt: skip
@click.option("--server", "url", type=ADDRESS, envvar="PREFECT_API_URL", default="http://127.0.0.1:4200",
              show_default=True, help="Prefect server.")  # fmt: skip
@click.pass_obj
def stale(
    app: App, /, folder: Path | None, submit: bool, schedule: str | None, url: str, **filters: Any
) -> None:
    """List engines that no longer match their model, hosts or gate data, and the cost of a rebuild.

    Example: enginery registry stale --pools pools.yaml --gate-max-age 60
    """
    from pipeline.rebuild.find_stale import (  # SQLAlchemy and planning: not for --help
        StaleQuery,
        list_stale_versions,
    )

    query = StaleQuery(**filters)
    if schedule is not None:
        _schedule_check(app, query, schedule, url)
        return
    with app.announcing():
        findings = list_stale_versions(query, app, app.out.say)
    app.out.rows([_row(finding) for finding in findings if finding.reasons], id_column="version")
    _print_summary(app, findings)
    if folder is not None:
        _write_recipes(app, findings, folder)
    if submit:
        _send_rebuilds(app, findings, url)


def _row(finding: "Finding") -> dict[str, Any]:
    from pipeline.flows.reports import stale_row  # rich: not for --help

    return stale_row(finding)


def _print_summary(app: App, findings: "list[Finding]") -> None:
    """The story beside the table: how many match, and why some cannot be planned here."""
    old = [finding for finding in findings if finding.reasons]
    app.out.say(f"{len(findings) - len(old)} of {len(findings)} versions match")
    for finding in old:
        if finding.problem:
            app.out.say(f"{finding.record.reference}: cannot be rebuilt here: {finding.problem}")


def _write_recipes(app: App, findings: "list[Finding]", folder: Path) -> None:
    from pipeline.rebuild.find_stale import write_recipe  # as above

    for finding in findings:
        if finding.rebuild is not None:
            app.out.say(f"wrote {write_recipe(finding.rebuild, folder)}")


def _send_rebuilds(app: App, findings: "list[Finding]", url: str) -> None:
    from pipeline.flows.deployments import send_rebuilds  # Prefect costs a second to import
    from pipeline.flows.prefect_server import Prefect

    for sent in send_rebuilds(findings, app.store_url, app.registry_url, Prefect.at(url)):
        app.out.say(f"sent {sent.name}: {sent.url}")


def _schedule_check(app: App, query: "StaleQuery", cron: str, url: str) -> None:
    from pipeline.cli.commands.submit import await_schedules, report, require_planned
    from pipeline.flows.deployments import schedule_stale  # Prefect costs a second to import
    from pipeline.flows.prefect_server import Prefect
    from pipeline.rebuild.host_pools import load_pools
    from recipes.schema import Schedule

    if query.pools is not None:
        load_pools(query.pools)  # refused now, not each night
    server = Prefect.at(url)
    sent = schedule_stale(query.as_dict(), app.store_url, app.registry_url, Schedule(cron=cron), server)
    awaited = await_schedules(app, [sent], server)
    report(app, sent, server, awaited, wait=False)
    require_planned(awaited, server)
