"""store gc: removes artifacts that no version, lease or policy keeps."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import DAYS, ORDINAL

if TYPE_CHECKING:
    from artifacts.collection.marking import Plan, Policy
    from artifacts.store.local import LocalStore

SHOWN = 20
"""Rows of each kind on a terminal; `--json` has all."""


@click.command()
@click.option("--keep-last", type=ORDINAL, default=3, show_default=True,
              help="Newest versions to keep of every name.")  # fmt: skip
@click.option("--keep-pulled", "keep_pulled_days", type=DAYS, default=30.0, show_default=True,
              metavar="DAYS", help="Keep versions pulled within DAYS.")  # fmt: skip
@click.option("--min-age", "min_age_days", type=DAYS, default=7.0, show_default=True,
              metavar="DAYS", help="Keep artifacts created, used or published within DAYS.")  # fmt: skip
@click.option("--litter", "litter_days", type=DAYS, default=14.0, show_default=True, metavar="DAYS",
              help="Keep logs, caches, partial builds and quarantine used within DAYS.")  # fmt: skip
@click.option("--drop-lineage", is_flag=True, help="For retained versions, delete everything but the engine.")
@click.option("--also", multiple=True, metavar="URL",
              help="Another registry of this store; artifacts that it names stay.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def gc(
    app: App, /, drop_lineage: bool, dry_run: bool, yes: bool, also: tuple[str, ...], **numbers: Any
) -> None:
    """Remove artifacts that no version, lease or policy keeps.

    Targets of aliases and of rollbacks, and artifacts in use by a build, push or pull, always stay.

    Example: enginery store gc --keep-last 2 --dry-run
    """
    from artifacts.collection.marking import Policy  # SQLAlchemy: not for --help

    policy, store = Policy(lineage=not drop_lineage, **numbers), app.client.store
    collect = partial(run, app, policy, also)
    if not dry_run and not yes:
        # a script that waits for an answer would hang
        if not sys.stdin.isatty():
            raise click.UsageError("gc removes artifacts; preview with --dry-run, then give --yes")
        # what is shown is a plan; the run below makes its own, as the store may change meanwhile
        print_plan(app, collect(dry_run=True), dry_run=True)
        # on stderr: stdout is the answer
        click.confirm("remove them?", abort=True, err=True)
    plan = collect(dry_run=dry_run)
    # versions that lost their files are events
    if plan.collected and not dry_run:
        app.announce()
    if app.out.json_mode or app.out.quiet:
        answer = {"dry_run": dry_run, **plan.as_dict()}
        app.out.value(answer, text="", short="\n".join(artifact.key for artifact in plan.removed))
    else:
        print_plan(app, plan, dry_run=dry_run)
    clean_cache(app, store, policy, dry_run=dry_run)


def run(app: App, policy: "Policy", also: tuple[str, ...], *, dry_run: bool) -> "Plan":
    """The collection, or what it would be; the registry inside a store is always asked."""
    from artifacts.collection import sweep
    from artifacts.collection.places import place_of
    from artifacts.errors import NotFound
    from artifacts.registry.database import open_database
    from artifacts.registry.retention import Names
    from pipeline.cli.progress import Bar

    store = app.client.store
    # a remote store has no registry in it
    own = None if store.remote is not None else store.registry_url
    database = open_database(app.registry_url or store.registry_url)
    others = [*also, own] if own is not None and database.url != own else also
    names = Names(database, inside=database.url == own)
    for url in also:
        if not open_database(url).exists():
            raise NotFound(f"no registry at {url}, so --also keeps nothing; give its URL")
    other_databases = [open_database(url) for url in others]
    with Bar(app.out, "gc") as progress:
        return sweep.collect(
            place_of(store), names, policy, also=other_databases, dry_run=dry_run, progress=progress
        )


def clean_cache(app: App, store: "LocalStore", policy: "Policy", *, dry_run: bool) -> None:
    """Removes the litter of the directory in front of a remote store."""
    from artifacts.collection import sweep
    from artifacts.collection.places import LocalPlace
    from pipeline.units import size

    if store.remote is not None:
        plan = sweep.tidy(LocalPlace(store), policy, dry_run=dry_run)
        verb = "would free" if dry_run else "freed"
        app.out.say(f"cache {store.root}: {verb} {size(plan.freed_bytes)} of litter")


def print_plan(app: App, plan: "Plan", *, dry_run: bool) -> None:
    """Prints what is removed, what stays, and why."""
    from artifacts.collection.marking import DAY_S
    from pipeline.units import size

    kept_rows = [
        {"stays": version.reference, "engine": version.engine_key[:12], "because": ", ".join(version.reasons)}
        for version in plan.versions
    ]
    removed_rows = [
        {
            "goes": version.kind,
            "key": version.key[:12],
            "size": size(version.size_bytes),
            "unused for": f"{version.age_s / DAY_S:.1f} days",
            "of": ", ".join(version.versions) or "no version",
        }
        for version in plan.removed
    ]
    litter = [{"goes": version.place, "size": size(version.size_bytes)} for version in plan.litter]
    for rows in (kept_rows, removed_rows, litter):
        app.out.rows(rows[:SHOWN], id_column="")
        if len(rows) > SHOWN:
            app.out.line(f"... and {len(rows) - SHOWN} more; --json lists them")
    for problem in plan.problems:
        app.out.warn(problem)
    app.out.line(summarize(plan, dry_run=dry_run))


def summarize(plan: "Plan", *, dry_run: bool) -> str:
    """What a collection comes to, in a line."""
    from pipeline.units import size

    collected = ", ".join(version.reference for version in plan.collected) or "none"
    stays = ", ".join(f"{number} {why}" for why, number in plan.kept.items()) or "none"
    whole = sum(version.size_bytes for version in plan.removed) + sum(
        version.size_bytes for version in plan.litter
    )
    # equal files are stored once: removing one of two artifacts frees nothing of theirs
    shared = whole - plan.freed_bytes
    return (
        f"{'would free' if dry_run else 'freed'} {size(plan.freed_bytes)}"
        + (f" ({size(shared)} more is shared)" if shared > 0 else "")
        + f"; versions collected: {collected}; artifacts that stay: {stays}"
    )
