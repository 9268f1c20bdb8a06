"""verify, repair, store: whether what is stored is what was stored, and what to do where it is not."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.audit_report import CURE, audited, findings, require_sound
from pipeline.cli.commands.sign import trust_options, trusted
from pipeline.cli.lease_holders import named, versions
from pipeline.cli.unused_options import refuse_unused
from recipes.regular import is_directory

if TYPE_CHECKING:
    from artifacts.registry.audit import Audit
    from artifacts.registry.registry import Binding
    from artifacts.store.draft import Source
    from artifacts.store.repair import Repair
    from artifacts.store.survey import Damage, Survey

REFERENCE = click.argument("reference", metavar="[NAME[@ALIAS|:VERSION]|DIRECTORY]", required=False)
MOST_SHOWN = 50
"""Damaged files that are named; the others are counted."""

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

    Damaged files are named with the versions that have them; exit 1.

    Example: enginery verify --all
    """
    from artifacts.pull.pulled import require_published  # pydantic: not for --help

    _require_one(reference, whole=whole)
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
    signed = () if keys is None else app.client.require_trusted(where, keys)
    by = f", and signed by {', '.join(key[:16] for key in signed)}" if signed else ""
    app.out.value(
        {"reference": reference, "problems": [], "signed_by": list(signed)},
        text=f"{reference}: every file is as published{by}",
        short=reference,
    )


@click.command()
@click.argument("reference", metavar="[NAME[@ALIAS|:VERSION]]", required=False)
@WHOLE
@click.option(
    "--from", "other", metavar="STORE|DIRECTORY", help="Store or pulled directory with right bytes."
)
@click.option("--discard", is_flag=True, help="Set aside what stays damaged: its recipe builds it again.")
@click.pass_obj
def repair(app: App, reference: str | None, whole: bool, other: str | None, discard: bool) -> None:
    """Replace damaged files by right bytes: of another copy in the store, another store, a pulled directory.

    A cache is repaired from its remote store, and that from the cache. Exit 1 if a file stays damaged.

    Example: enginery repair --all
    """
    from artifacts.store.repair_remote import give_up, repair_all

    _require_one(reference, whole=whole)
    store = app.client.store
    keys = None if reference is None else [_brought(app, reference, other)]
    source = None if other is None else _source(app, other)  # a wrong one is told even if it is not needed
    back = _brought_back(app, other) if whole else []
    found = _surveys(app, keys)
    damages = [damage for one in found for damage in one.damages]
    bound = _bound(app) if damages else None
    source = _source(app, None) if damages and source is None else source
    mended, left = [], []
    for done in repair_all(store, damages, source, registered_id=bound):
        if done.repaired:
            app.out.say(f"repaired {done.damage.paths[-1]}: {done.how}")
            mended.append({"paths": list(done.damage.paths), "how": done.how})
        else:
            left.append(done)
    given_up = [key for one in left for key in give_up(store, one.damage)] if discard else []
    _require_mended([one for one in left if not (discard and one.damage.keys)], hint=other is None)
    files = sum(one.files for one in found)
    aside = f"; {_count(given_up, 'artifact')} set aside, to be built again" if given_up else ""
    came = f", {_count(back, 'lost engine')} brought back" if back else ""
    app.out.value(
        {"files": files, "repaired": mended, "brought_back": back, "discarded": given_up},
        text=f"{files:,} files read, {_count(mended, 'damaged file')} repaired{came}{aside}",
        short=str(len(mended)),
    )
    if whole:
        require_sound(audited(app, engines=False))  # what was set aside is to be built again


def _brought_back(app: App, other: str | None) -> list[str]:
    """Versions whose engine is brought from the other copy: all that the store lost and that copy has.

    What gc took was given up, and stays away. A registry that cannot be read is told of at the end.
    """
    from artifacts.errors import ArtifactCorrupt, StoreUnusable  # pydantic: not for --help
    from artifacts.store.bring import bring

    store, back = app.client.store, []
    source = None if other is None else _source(app, other)
    if source is None:
        return []
    try:
        lost = [
            one for one in app.registry.every() if one.collected_at is None and not store.has(one.address)
        ]
    except StoreUnusable as exc:
        app.out.warn(f"which engines are missing is not known: {exc}")
        return []
    for record in lost:
        try:
            if store.has(record.address) or bring(store, record.address, source):
                app.out.say(f"{record.reference} is back in {app.store_url}: from the other copy")
                back.append(record.reference)
        except ArtifactCorrupt as exc:
            app.out.warn(f"{record.reference} is not brought back: {exc}")
    return back


def _brought(app: App, reference: str, other: str | None) -> str:
    """What the store calls a version's engine, which is brought from the other copy where it lacks it."""
    from artifacts.registry import retention  # SQLAlchemy: not for --help
    from artifacts.store.bring import bring

    record, store = app.client.resolve(reference), app.client.store
    if not store.has(record.address):
        source = _source(app, other)
        if source is None or not bring(store, record.address, source):
            app.client.manifest(record)  # says what the store has instead
        with app.registry.database.writing() as db:
            retention.restore(db, record.name, record.number)
        app.out.say(f"{record.reference} is back in {app.store_url}: from the other copy")
    return record.address


def _require_mended(left: "list[Repair]", *, hint: bool) -> None:
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    if left:
        told = [f"  {done.damage}\n    {done.how}" for done in left]
        error = ArtifactCorrupt("\n".join([f"{_count(told, 'file')} still damaged:", *told]))
        if hint:
            error.add_note(
                "enginery repair --all --from STORE, if another store or a pull has the right bytes; "
                "enginery repair --all --discard gives up what stays damaged: its recipe builds it again"
            )
        raise error


def _source(app: App, other: str | None) -> "Source | None":
    """Where right bytes are sought: where was said, else in the store that the registry names."""
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help
    from artifacts.store.repair import source_at

    store = app.client.store
    if other is not None:
        return source_at(other)
    bound = None if store.remote is not None else _binding(app)
    with suppress(ArtifactCorrupt):  # a damaged store.json does not say which store this is
        identity = store.identity()
        bound = None if bound is None or (identity and identity.id == bound.id) else bound
    if bound is None or bound.url == store.url:
        return None
    app.out.say(f"the registry names the artifacts of {bound.url}: right bytes are sought there too")
    return source_at(bound.url)


def _bound(app: App) -> str | None:
    """The id that this store had, if its registry knows it; another store's is not given to this one."""
    store = app.client.store
    bound = None if store.remote is not None else _binding(app)
    own = bound is not None and (bound.url == store.url or app.registry.url == store.registry_url)
    return bound.id if bound is not None and own else None


def _binding(app: App) -> "Binding | None":
    """The store that the registry names; None where it does not say: files are repaired without it."""
    from artifacts.errors import ArtifactCorrupt, StoreUnusable  # pydantic: not for --help

    try:
        return app.registry.bound()
    except (ArtifactCorrupt, StoreUnusable) as exc:
        app.out.warn(f"the registry does not say whose artifacts it names: {exc}")
        return None


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
    from artifacts.store.sharing import measure  # pydantic: not for --help
    from pipeline.units import size

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
    from artifacts.store.sharing import measure, share  # pydantic: not for --help
    from pipeline.units import size

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
    from pipeline.units import size

    found = _surveys(app, None)
    audit = audited(app)
    damages = [damage for one in found for damage in one.damages]
    files = sum(one.files for one in found)
    told = _told(app, damages, files, audit)
    if told:
        error = ArtifactCorrupt("\n".join(told))
        if damages:
            error.add_note("enginery repair --all")
        if findings(audit):
            error.add_note(CURE)
        raise error
    lines = [
        f"{one.artifacts:,} artifacts, {one.files:,} files, {size(one.size_bytes)}{where}:"
        " every file is as it was stored"
        for one, where in zip(found, _places(app), strict=False)
    ]
    if audit is not None:
        lines.append(
            f"{audit.versions:,} versions, {audit.rows:,} rows of the registry: each is as it was written"
        )
    app.out.value(
        {
            "artifacts": found[-1].artifacts,
            "files": files,
            "bytes": sum(one.size_bytes for one in found),
            "registry": None if audit is None else {"rows": audit.rows, "versions": audit.versions},
            "problems": [],
        },
        text="\n".join(lines),
        short=str(found[-1].artifacts),
    )


def _told(app: App, damages: "list[Damage]", files: int, audit: "Audit | None") -> list[str]:
    """Everything that is not as it was, in lines: of each kind the first, and how many more."""
    found = findings(audit)
    if damages:
        keys = {key for damage in damages for key in damage.keys}
        having = {} if audit is None or audit.unreadable else versions(app, keys)
        told = [f"  {damage}\n    {named(damage, having)}" for damage in damages[:MOST_SHOWN]]
        more = [f"  and {len(damages) - MOST_SHOWN:,} more"] if len(damages) > MOST_SHOWN else []
        found += [f"{_count(damages, 'file')} of {files:,} damaged:", *told, *more]
    return found


def _places(app: App) -> list[str]:
    """Where each survey was made, in words; nothing is said of a store that is one directory."""
    store = app.client.store
    return [""] if store.remote is None else [f" in the cache {store.root}", f" in {store.url}"]


def _surveys(app: App, keys: list[str] | None) -> "list[Survey]":
    """What was read of the store; of a remote one, what was read of the cache and then over the network."""
    from artifacts.store.survey import survey  # pydantic: not for --help
    from artifacts.store.survey_remote import survey_remote
    from pipeline.cli.progress_bar import Moving

    store = app.client.store
    here = keys if keys is None or store.remote is None else [key for key in keys if store.local.has(key)]
    with Moving(app.out, "reading") as progress:
        found = [survey(store, here, progress)]
    if store.remote is not None:
        with Moving(app.out, f"reading {store.url}") as progress:
            found.append(survey_remote(store.remote, keys, progress))
    return found


def _count(items: Iterable[object], what: str) -> str:
    number = len(list(items))
    return f"{number:,} {what}{'' if number == 1 else 's'}"
