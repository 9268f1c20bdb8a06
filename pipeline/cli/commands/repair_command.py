"""store repair: damaged files replaced from another copy."""

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.audit_report import audited, require_sound
from pipeline.cli.commands.verify import WHOLE, count, require_target, survey_store

if TYPE_CHECKING:
    from artifacts.registry.registry import Binding
    from artifacts.store.draft import Source
    from artifacts.store.repair import Repair


@click.command()
@click.argument("reference", metavar="[NAME[@ALIAS|:VERSION]]", required=False)
@WHOLE
@click.option(
    "--from", "other", metavar="STORE|DIRECTORY", help="Store or pulled directory with intact files."
)
@click.option(
    "--discard", is_flag=True, help="Set aside artifacts that stay damaged; their recipes build them again."
)
@click.pass_obj
def repair(app: App, reference: str | None, whole: bool, other: str | None, discard: bool) -> None:
    """Replace damaged files from another copy: in the store, another store or a pulled directory.

    A cache is repaired from its remote store, and that from the cache. Exit 1 if a file stays damaged.

    Example: enginery store repair --all
    """
    from artifacts.store.repair_remote import give_up, repair_all

    require_target(reference, whole=whole)
    store = app.client.store
    keys = None if reference is None else [_restore_engine(app, reference, other)]
    source = None if other is None else _source(app, other)  # a wrong one is told even if it is not needed
    back = _restore_lost(app, other) if whole else []
    surveys = survey_store(app, keys)
    damages = [damage for item in surveys for damage in item.damages]
    bound = _own_store_id(app) if damages else None
    source = _source(app, None) if damages and source is None else source
    mended, unrepaired = [], []
    for done in repair_all(store, damages, source, registered_id=bound):
        if done.repaired:
            app.out.say(f"repaired {done.damage.paths[-1]}: {done.how}")
            mended.append({"paths": list(done.damage.paths), "how": done.how})
        else:
            unrepaired.append(done)
    given_up = [key for item in unrepaired for key in give_up(store, item.damage)] if discard else []
    _require_repaired([item for item in unrepaired if not (discard and item.damage.keys)], hint=other is None)
    files = sum(item.files for item in surveys)
    aside = f"; {count(given_up, 'artifact')} set aside, to be built again" if given_up else ""
    came = f", {count(back, 'lost engine')} restored" if back else ""
    app.out.value(
        {"files": files, "repaired": mended, "brought_back": back, "discarded": given_up},
        text=f"{files:,} files read, {count(mended, 'damaged file')} repaired{came}{aside}",
        short=str(len(mended)),
    )
    if whole:
        require_sound(audited(app, engines=False))  # what was set aside is to be built again


def _restore_lost(app: App, other: str | None) -> list[str]:
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
            candidate
            for candidate in app.registry.every()
            if candidate.collected_at is None and not store.has(candidate.address)
        ]
    except StoreUnusable as exc:
        app.out.warn(f"cannot tell which engines are missing: {exc}")
        return []
    for record in lost:
        try:
            if store.has(record.address) or bring(store, record.address, source):
                app.out.say(f"{record.reference} is restored in {app.store_url} from the other copy")
                back.append(record.reference)
        except ArtifactCorrupt as exc:
            app.out.warn(f"{record.reference} is not restored: {exc}")
    return back


def _restore_engine(app: App, reference: str, other: str | None) -> str:
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
        app.out.say(f"{record.reference} is restored in {app.store_url} from the other copy")
    return record.address


def _require_repaired(unrepaired: "list[Repair]", *, hint: bool) -> None:
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    if unrepaired:
        lines = [f"  {done.damage}\n    {done.how}" for done in unrepaired]
        error = ArtifactCorrupt("\n".join([f"{count(lines, 'file')} still damaged:", *lines]))
        if hint:
            error.add_note(
                "enginery store repair --all --from STORE, if another store or a pull has intact files; "
                "enginery store repair --all --discard drops what stays damaged: its recipe builds it again"
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
    app.out.say(f"the registry names the artifacts of {bound.url}: intact files are searched there too")
    return source_at(bound.url)


def _own_store_id(app: App) -> str | None:
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
        app.out.warn(f"the registry does not name its store: {exc}")
        return None
