"""verify, repair, store: whether what is stored is what was stored, and what to do where it is not."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.app import App
from pipeline.commands.trust import trust_options, trusted

if TYPE_CHECKING:
    from artifacts.registry import Registry
    from artifacts.survey import Damage, Survey

REFERENCE = click.argument("reference", metavar="[NAME[@ALIAS|:VERSION]|DIRECTORY]", required=False)
WHOLE = click.option("--all", "whole", is_flag=True, help="Every artifact of the store.")
SHOWN = 12
"""Versions that are named of a damaged file; the others are counted."""


@click.command()
@REFERENCE
@WHOLE
@trust_options
@click.pass_obj
def verify(
    app: App, reference: str | None, whole: bool, trusted_key: tuple[Path, ...], require_signed: bool
) -> None:
    """Hash every file of a version, of a pulled directory, or of the whole store again.

    Damaged files are named with the versions that have them; exit 1.

    Example: enginery verify --all
    """
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    _require_one(reference, whole=whole)
    if reference is None:
        _verify_store(app)
        return
    where: str | Path = Path(reference) if Path(reference).is_dir() else reference
    problems = app.client.verify(where)
    if problems:
        raise ArtifactCorrupt("\n".join([f"{reference} is not as published:", *(f"  {p}" for p in problems)]))
    keys = trusted(trusted_key, require_signed)
    signed = () if keys is None else app.client.require_trusted(where, keys)
    by = f", and signed by {', '.join(key[:16] for key in signed)}" if signed else ""
    app.out.value(
        {"reference": reference, "problems": [], "signed_by": list(signed)},
        text=f"{reference}: every file is as published{by}",
        short=reference,
    )


@click.command()
@REFERENCE
@WHOLE
@click.option(
    "--from", "other", metavar="STORE|DIRECTORY", help="Store or pulled directory with right bytes."
)
@click.pass_obj
def repair(app: App, reference: str | None, whole: bool, other: str | None) -> None:
    """Replace damaged files by right bytes: of another copy in the store, another store, a pulled directory.

    Exit 1 if a file stays damaged.

    Example: enginery repair --all
    """
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help
    from artifacts.repair import repair, source_at

    _require_one(reference, whole=whole)
    store = app.client.store
    keys = None if reference is None else [app.client.resolve(reference).engine_key]
    found = _survey(app, keys)
    mended, left = [], []
    for done in repair(store, found.damages, source_at(other) if other else None):
        if done.repaired:
            app.out.say(f"repaired {done.damage.paths[-1]}: {done.how}")
            mended.append({"paths": list(done.damage.paths), "how": done.how})
        else:
            left.append(f"  {done.damage}\n    {done.how}")
    if left:
        error = ArtifactCorrupt("\n".join([f"{_count(left, 'file')} still damaged:", *left]))
        if other is None:
            error.add_note(
                "enginery repair --all --from STORE, if another store or a pull has the right bytes"
            )
        raise error
    app.out.value(
        {"files": found.files, "repaired": mended},
        text=f"{found.files:,} files read, {_count(mended, 'damaged file')} repaired",
        short=str(len(mended)),
    )


@click.group()
def store() -> None:
    """Say what a store holds; let artifacts written by early versions share their files.

    Example: enginery store show
    """


@store.command()
@click.pass_obj
def show(app: App) -> None:
    """Show id, artifacts and bytes, with and without the files that artifacts share.

    Example: enginery store show
    """
    from artifacts.sharing import measure  # pydantic: not for --help
    from pipeline.output import size

    opened = app.client.store
    identity, found = opened.identity(), measure(opened)
    answer = {
        "store": app.store_url,
        "id": identity.id if identity else None,
        "artifacts": found.artifacts,
        "listed_bytes": found.listed_bytes,
        "held_bytes": found.held_bytes,
        "unused_bytes": found.unused_bytes,
    }
    ratio = found.listed_bytes / max(found.held_bytes, 1)
    app.out.value(
        answer,
        text=f"{app.store_url}   id {identity.id[:12] if identity else 'none yet'}\n"
        f"{found.artifacts:,} artifacts of {size(found.listed_bytes)} take {size(found.held_bytes)}:"
        f" {ratio:.2f} times less, since each file is stored once\n"
        f"{size(found.unused_bytes)} are used by no artifact",
        short=str(found.held_bytes),
    )


@store.command()
@click.pass_obj
def share(app: App) -> None:
    """Let artifacts that were written by versions without sharing share their files.

    Example: enginery store share
    """
    from artifacts.sharing import measure, share  # pydantic: not for --help
    from pipeline.output import size

    opened = app.client.store
    before = measure(opened)
    damaged = share(opened)
    after = measure(opened)
    for path in damaged:
        app.out.warn(f"{path} is damaged and was left alone; see `enginery verify --all`")
    freed = before.held_bytes - after.held_bytes
    app.out.value(
        {"freed_bytes": freed, "damaged": [str(path) for path in damaged]},
        text=f"{after.artifacts:,} artifacts share their files; {size(freed)} were freed",
        short=str(freed),
    )


def _require_one(reference: str | None, *, whole: bool) -> None:
    if (reference is None) != whole:
        raise click.UsageError("give a version or a directory, or --all for the whole store")


def _verify_store(app: App) -> None:
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help
    from pipeline.output import size

    found = _survey(app, None)
    if found.damages:
        having = _versions(app.registry, {key for damage in found.damages for key in damage.keys})
        told = [f"  {damage}\n    {_named(damage, having)}" for damage in found.damages]
        error = ArtifactCorrupt("\n".join([f"{_count(told, 'file')} of {found.files:,} damaged:", *told]))
        error.add_note("enginery repair --all")
        raise error
    app.out.value(
        {"artifacts": found.artifacts, "files": found.files, "bytes": found.size_bytes, "problems": []},
        text=f"{found.artifacts:,} artifacts, {found.files:,} files, {size(found.size_bytes)}:"
        " every file is as it was stored",
        short=str(found.artifacts),
    )


def _survey(app: App, keys: list[str] | None) -> "Survey":
    from artifacts.survey import survey  # pydantic: not for --help
    from pipeline.moving import Moving

    with Moving(app.out, "reading") as progress:
        return survey(app.client.store, keys, progress)


def _versions(registry: "Registry", keys: set[str]) -> dict[str, list[str]]:
    """Key -> versions that have the artifact, and as what."""
    found: dict[str, list[str]] = {}
    for name in registry.names():
        for record in registry.versions(name):
            parts = {record.engine_key: "engine"} | {key: kind for kind, key in record.lineage.items()}
            for key in parts.keys() & keys:
                found.setdefault(key, []).append(f"{record.reference} ({parts[key]})")
    return found


def _named(damage: "Damage", having: dict[str, list[str]]) -> str:
    versions = sorted({version for key in damage.keys for version in having.get(key, [])})
    if not versions:
        return "no published version has it"
    more = f" and {len(versions) - SHOWN} more" if len(versions) > SHOWN else ""
    return f"in {', '.join(versions[:SHOWN])}{more}"


def _count(items: Iterable[object], what: str) -> str:
    number = len(list(items))
    return f"{number:,} {what}{'' if number == 1 else 's'}"
