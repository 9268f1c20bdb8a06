"""pull: a version into a directory, once or as often as an alias moves."""

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH, SECONDS
from pipeline.cli.commands.generate import REFERENCE, facts_here
from pipeline.cli.commands.sign import trust_options, trusted

if TYPE_CHECKING:
    from artifacts.pull.watch import Change
    from artifacts.version import VersionRecord

AFTER_S = 600.0
"""How long the command of `--then` may take."""


@click.command()
@REFERENCE
@click.argument("directory", type=PATH)
@trust_options
@click.option(
    "--watch", "every", is_flag=False, flag_value=30.0, type=SECONDS, metavar="[SECONDS]",
    help="Follow the alias, checking this often (30); DIRECTORY/current links to its version.",
)  # fmt: skip
@click.option(
    "--then", metavar="COMMAND", help="Command to run after each change, with --watch; e.g. a reload."
)
@click.pass_obj
def pull(  # noqa: PLR0913, PLR0917 what click hands over
    app: App,
    reference: str,
    directory: Path,
    trusted_key: tuple[Path, ...],
    require_signed: bool,
    every: float | None,
    then: str | None,
) -> None:
    """Copy a version to DIRECTORY, every byte verified on the way.

    An interrupted pull resumes where it stopped.

    Example: enginery pull demo/int4_awq_tp2@candidate ./engine
    """
    # the client itself refuses what none of these keys signed, before it copies
    app.client.trusted_keys = trusted(trusted_key, require_signed)
    if then is not None and every is None:
        raise click.UsageError("--then runs after a change of the alias; add --watch")
    if every is None:
        _once(app, reference, directory)
        return
    try:
        _follow(app, reference, directory, every, then)
    except KeyboardInterrupt:  # how following ends
        app.out.say(f"stopped following {reference}; {directory / 'current'} stays as it is")


def _follow(app: App, reference: str, directory: Path, every_s: float, then: str | None) -> None:
    app.out.say(f"following {reference}; Ctrl-C ends it and leaves {directory / 'current'} as it is")
    for change in app.client.watch(reference, directory, every_s=every_s):
        _print_pulled(app, change.record, change.directory)
        app.out.flush()
        if then is not None:
            _run_then(app, change, then)


def _once(app: App, reference: str, directory: Path) -> None:
    from pipeline.cli.progress import Bar  # rich: not for --help

    record = app.client.resolve(reference)
    with Bar(app.out, f"pull {reference}") as progress:
        path = app.client.pull(reference, directory, progress=progress)
    _print_pulled(app, record, path)


def _print_pulled(app: App, record: "VersionRecord", path: Path) -> None:
    """Prints where the version is, how to serve it, and why this host might not load it."""
    from artifacts.finding.match import match  # not for --help
    from artifacts.registry.remarks import notices  # with the registry

    remarks = app.registry.remarks([(record.name, record.number)])[record.name, record.number]
    version_notices = notices(record, remarks)
    for notice in version_notices:
        app.out.notice(notice.tone, f"{record.reference}: {notice.text}")
    (result,) = match([record], facts_here(app))
    # a warning only: it may be pulled for another host
    if result.dropped:
        app.out.warn(f"this host cannot load {record.reference}: {'; '.join(result.dropped)}")
    serve = serving(record, path)
    app.out.value(
        {
            "version": record.reference,
            "directory": str(path),
            "serve": serve,
            "notices": [item.text for item in version_notices],
        },
        text="\n".join(
            [f"pulled {record.reference} to {path}", *(f"{label}: {how}" for label, how in serve.items())]
        ),
        short=str(path),
    )


def serving(record: "VersionRecord", path: Path) -> dict[str, str]:
    """Commands that run or serve a pulled version, by what they do."""
    from pipeline.engines import find_backend  # pydantic: not for --help

    quoted = shlex.quote(str(path))
    # an imported checkpoint is no engine: one is built of it first
    if record.facts.get("backend") == "checkpoint":
        return {"build an engine of it": f"enginery init recipe.yaml --model {quoted}"}
    commands = {"run it": f"enginery generate {quoted} 'def '"}
    backend = find_backend(record.facts.get("backend"))
    if backend is not None and backend.server is not None:
        out = shlex.quote(f"{path}-server")
        commands["serve it"] = f"enginery export {record.reference} --to {backend.server} --out {out}"
    return commands


def _run_then(app: App, change: "Change", then: str) -> None:
    """Runs the command of `--then`; a failure is a warning: it may succeed after the next change."""
    from pipeline.errors import BuildFailed
    from pipeline.process import process  # starts programs

    env = {
        **os.environ,
        "ENGINERY_VERSION": change.record.reference,
        "ENGINERY_DIRECTORY": str(change.directory),
    }
    with tempfile.TemporaryDirectory() as folder:
        # split as a shell does, but no shell is started
        work = process.Job(
            name=then, argv=shlex.split(then), log=Path(folder, "log"), timeout_s=AFTER_S, env=env
        )
        try:
            process.run(work, on_line=app.out.say)
        except (BuildFailed, OSError) as exc:
            app.out.warn(f"--then failed after {change.record.reference}: {exc}")
