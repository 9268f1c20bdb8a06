"""registry init, upgrade, show: the database of names and versions."""

from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App

if TYPE_CHECKING:
    from artifacts.registry.database import Database


@click.command()
@click.pass_obj
def init(app: App) -> None:
    """Create the tables; existing tables stay as they are.

    Example: enginery --registry postgresql://enginery@db/engines registry init
    """
    database = _database(app)
    before = database.schema()
    database.create()
    done = "created" if before is None else "exists already:"
    _print_schema(app, database, f"{done} registry {database.url}, schema {database.schema()}")


@click.command()
@click.pass_obj
def upgrade(app: App) -> None:
    """Migrate the tables of an older enginery to this version, in one transaction.

    Older versions of enginery refuse the registry afterwards.

    Example: enginery registry upgrade
    """
    database = _database(app)
    before, after = database.upgrade()
    _note_own_registry(app, database)
    state = f"schema {before} is now {after}" if before != after else f"schema {after} is the newest already"
    _print_schema(app, database, f"registry {database.url}: {state}")


@click.command()
@click.pass_obj
def show(app: App) -> None:
    """Show the registry's address, schema, store and row counts.

    Example: enginery registry show
    """
    from artifacts.registry.registry import open_registry  # SQLAlchemy: not for --help
    from artifacts.registry.tables import SCHEMA_VERSION

    database = _database(app)
    number = database.schema()
    answer: dict[str, object] = {"registry": database.url, "kind": database.kind, "schema": number}
    if number == SCHEMA_VERSION:
        opened = open_registry(_url(app))
        answer |= opened.counts()
        store = opened.bound()
        answer |= {"store": store and store.id, "store_url": store and store.url}
    elif number is not None:
        older = number < SCHEMA_VERSION
        answer["problem"] = f"this version of enginery reads schema {SCHEMA_VERSION}; " + (
            "bring it there with: enginery registry upgrade" if older else "use a newer version of enginery"
        )
    lines = [
        f"{name.replace('_', ' '):<10} {'-' if value is None else value}" for name, value in answer.items()
    ]
    app.out.value(answer, text="\n".join(lines), short=database.url)


def _note_own_registry(app: App, database: "Database") -> None:
    """Notes that the store has a registry of its own; those of earlier versions did not note it."""
    from artifacts.collection.registries import remember_own
    from artifacts.store.opening import open_store  # pydantic: not for --help

    if app.registry_url is None:
        remember_own(open_store(app.store_url), database.url)


def _url(app: App) -> str:
    from artifacts.store.opening import open_store  # pydantic: not for --help

    return app.registry_url or open_store(app.store_url).registry_url


def _database(app: App) -> "Database":
    """The database, whatever is in it."""
    from artifacts.registry.database import connect  # SQLAlchemy: not for --help

    return connect(_url(app))


def _print_schema(app: App, database: "Database", text: str) -> None:
    app.out.value({"registry": database.url, "schema": database.schema()}, text=text, short=database.url)
