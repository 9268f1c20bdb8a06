"""pull: a version into a directory, once or as often as an alias moves."""

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.commands.generate import REFERENCE, facts_here
from pipeline.cli.commands.sign import trust_options, trusted
from pipeline.cli.parameter_types import PATH, SECONDS

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
    help="Follow the alias, look this often (30): versions side by side, DIRECTORY/current is the one.",
)  # fmt: skip
@click.option("--then", metavar="COMMAND", help="With --watch: run after each change, e.g. to reload.")
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

    An interrupted pull goes on where it was.

    Example: enginery pull demo/int4_awq_tp2@candidate ./engine
    """
    app.client.trusted_keys = trusted(trusted_key, require_signed)
    if then is not None and every is None:
        raise click.UsageError("--then runs after a change, and nothing is watched; add --watch")
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
        _tell(app, change.record, change.directory)
        app.out.flush()
        if then is not None:
            _after(app, change, then)


def _once(app: App, reference: str, directory: Path) -> None:
    from pipeline.cli.progress_bar import Moving  # rich: not for --help

    record = app.client.resolve(reference)
    with Moving(app.out, f"pull {reference}") as moving:
        path = app.client.pull(reference, directory, progress=moving)
    _tell(app, record, path)


def _tell(app: App, record: "VersionRecord", path: Path) -> None:
    """What came where, how to serve it, and what speaks against serving it here."""
    from artifacts.finding.match import match  # not for --help
    from artifacts.registry.remarks import notices  # with the registry

    remarks = app.registry.remarks([(record.name, record.number)])[record.name, record.number]
    said = notices(record, remarks)
    for notice in said:
        app.out.notice(notice.tone, f"{record.reference}: {notice.text}")
    (found,) = match([record], facts_here(app))
    if found.dropped:
        app.out.warn(f"this host cannot load {record.reference}: {'; '.join(found.dropped)}")
    serve = serving(record, path)
    app.out.value(
        {
            "version": record.reference,
            "directory": str(path),
            "serve": serve,
            "notices": [one.text for one in said],
        },
        text="\n".join(
            [f"pulled {record.reference} to {path}", *(f"{what}: {how}" for what, how in serve.items())]
        ),
        short=str(path),
    )


def serving(record: "VersionRecord", path: Path) -> dict[str, str]:
    """Commands that run or serve a pulled version, by what they do."""
    from pipeline.engines import find_backend  # pydantic: not for --help

    shown = shlex.quote(str(path))
    if record.facts.get("backend") == "checkpoint":
        return {"build an engine of it": f"enginery init recipe.yaml --model {shown}"}
    commands = {"run it": f"enginery generate {shown} 'def '"}
    backend = find_backend(record.facts.get("backend"))
    if backend is not None and backend.server is not None:
        out = shlex.quote(f"{path}-server")
        commands["serve it"] = f"enginery export {record.reference} --to {backend.server} --out {out}"
    return commands


def _after(app: App, change: "Change", then: str) -> None:
    """Runs the command of `--then`; its failure is a warning, because the next change may mend it."""
    from pipeline.errors import BuildFailed
    from pipeline.process import process  # starts programs

    env = {
        **os.environ,
        "ENGINERY_VERSION": change.record.reference,
        "ENGINERY_DIRECTORY": str(change.directory),
    }
    with tempfile.TemporaryDirectory() as folder:
        work = process.Job(
            name=then, argv=shlex.split(then), log=Path(folder, "log"), timeout_s=AFTER_S, env=env
        )
        try:
            process.run(work, on_line=app.out.say)
        except (BuildFailed, OSError) as exc:
            app.out.warn(f"--then failed after {change.record.reference}: {exc}")
