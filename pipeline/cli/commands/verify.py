"""verify: hashes a version, a pulled directory or the whole store again."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.audit_report import CURE, audited, findings
from pipeline.cli.command_parameters import refuse_unused
from pipeline.cli.commands.sign import trust_options, trusted
from recipes.regular import is_directory

if TYPE_CHECKING:
    from artifacts.registry.audit import Audit
    from artifacts.store.survey import Damage, Survey

REFERENCE = click.argument("reference", metavar="[NAME[@ALIAS|:VERSION]|DIRECTORY]", required=False)
MOST_SHOWN = 50
"""Damaged files that are named; the others are counted."""

MOST_VERSIONS = 12
"""Versions that are named of a damaged file; the others are counted."""

WHOLE = click.option("--all", "whole", is_flag=True, help="Every artifact of the store.")


@click.command()
@REFERENCE
@WHOLE
@trust_options
@click.pass_obj
def verify(
    app: App, reference: str | None, whole: bool, trusted_key: tuple[Path, ...], require_signed: bool
) -> None:
    """Hash every file of a version, of a pulled directory, or of the whole store again.

    Exit 1 if a file is damaged; the message names it and the versions that contain it.

    Example: enginery verify --all
    """
    from artifacts.pull.pulled import require_published  # pydantic: not for --help

    require_target(reference, whole=whole)
    if reference is None:
        refuse_unused(
            "with --all: signatures are of versions; name one, or a pulled directory",
            "trusted_key", "require_signed",
        )  # fmt: skip
        _verify_store(app)
        return
    where: str | Path = Path(reference) if is_directory(reference) else reference
    require_published(reference, app.client.verify(where))
    keys = trusted(trusted_key, require_signed)
    # after the files: a signature over damaged files says nothing
    signed = () if keys is None else app.client.require_trusted(where, keys)
    by = f", and signed by {', '.join(key[:16] for key in signed)}" if signed else ""
    app.out.value(
        {"reference": reference, "problems": [], "signed_by": list(signed)},
        text=f"{reference}: all files match the published digests{by}",
        short=reference,
    )


def require_target(reference: str | None, *, whole: bool) -> None:
    if (reference is None) != whole:
        raise click.UsageError("give a version or a directory, or --all for the whole store")


def _verify_store(app: App) -> None:
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help
    from pipeline.units import size

    surveys = survey_store(app, None)
    audit = audited(app)
    damages = [damage for survey in surveys for damage in survey.damages]
    files = sum(survey.files for survey in surveys)
    problems = _list_damage(app, damages, files, audit)
    if problems:
        error = ArtifactCorrupt("\n".join(problems))
        if damages:
            error.add_note("enginery store repair --all")
        if findings(audit):
            error.add_note(CURE)
        raise error
    lines = [
        f"{survey.artifacts:,} artifacts, {survey.files:,} files, {size(survey.size_bytes)}{where}:"
        " all files are intact"
        for survey, where in zip(surveys, _places(app), strict=False)
    ]
    if audit is not None:
        lines.append(f"{audit.versions:,} versions, {audit.rows:,} rows of the registry: all rows are intact")
    app.out.value(
        {
            "artifacts": surveys[-1].artifacts,
            "files": files,
            "bytes": sum(survey.size_bytes for survey in surveys),
            "registry": None if audit is None else {"rows": audit.rows, "versions": audit.versions},
            "problems": [],
        },
        text="\n".join(lines),
        short=str(surveys[-1].artifacts),
    )


def _list_damage(app: App, damages: "list[Damage]", files: int, audit: "Audit | None") -> list[str]:
    """Findings of the registry and damaged files, the first of each, in lines."""
    lines = findings(audit)
    if damages:
        keys = {key for damage in damages for key in damage.keys}
        # of an unreadable registry, damaged files are listed without their versions
        having = {} if audit is None or audit.unreadable else _versions_with(app, keys)
        shown_damages = [
            f"  {damage}\n    {_name_versions(damage, having)}" for damage in damages[:MOST_SHOWN]
        ]
        more = [f"  and {len(damages) - MOST_SHOWN:,} more"] if len(damages) > MOST_SHOWN else []
        lines += [f"{count(damages, 'file')} of {files:,} damaged:", *shown_damages, *more]
    return lines


def _places(app: App) -> list[str]:
    """Where each survey was made, in words; nothing is said of a store that is one directory."""
    store = app.client.store
    return [""] if store.remote is None else [f" in the cache {store.root}", f" in {store.url}"]


def survey_store(app: App, keys: list[str] | None) -> "list[Survey]":
    """What was read of the store; of a remote one, what was read of the cache and then over the network."""
    from artifacts.store.survey import survey  # pydantic: not for --help
    from artifacts.store.survey_remote import survey_remote
    from pipeline.cli.progress import Bar

    store = app.client.store
    # a cache has only what was used; what it lacks is no damage
    local_keys = (
        keys if keys is None or store.remote is None else [key for key in keys if store.local.has(key)]
    )
    with Bar(app.out, "reading") as progress:
        surveys = [survey(store, local_keys, progress)]
    if store.remote is not None:
        with Bar(app.out, f"reading {store.url}") as progress:
            surveys.append(survey_remote(store.remote, keys, progress))
    return surveys


def count(items: Iterable[object], noun: str) -> str:
    number = len(list(items))
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _versions_with(app: App, keys: set[str]) -> dict[str, list[str]]:
    """What the store calls an artifact -> versions that have it, and as what."""
    from artifacts.address import is_same, key_of  # with the store

    holders: dict[str, list[str]] = {}
    contents = {name: _content_digest(app, name) for name in keys}
    for record in app.registry.every():
        parts = {key: kind for kind, key in record.lineage.items()} | {record.engine_key: "engine"}
        # one key may have several contents: a version has the one that it published
        for name, content in contents.items():
            part = parts.get(key_of(name))
            if part and (part != "engine" or is_same(record.manifest_digest, content)):
                holders.setdefault(name, []).append(f"{record.reference} ({part})")
    return holders


def _content_digest(app: App, name: str) -> str | None:
    """Digest of the content of that name, if one copy of its manifest can still be read."""
    from artifacts.errors import ArtifactCorrupt, NotFound  # pydantic: not for --help

    store = app.client.store
    for place in (store.local, store.remote):
        with suppress(ArtifactCorrupt, NotFound):
            if place is not None:
                return place.manifest(name).digest
    return None


def _name_versions(damage: "Damage", having: dict[str, list[str]]) -> str:
    """The versions that have a damaged file, in words."""
    versions = sorted({version for key in damage.keys for version in having.get(key, [])})
    if not versions:
        return "no published version contains it"
    more = f" and {len(versions) - MOST_VERSIONS} more" if len(versions) > MOST_VERSIONS else ""
    return f"in {', '.join(versions[:MOST_VERSIONS])}{more}"
