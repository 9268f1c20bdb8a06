"""The registries that name a store's artifacts, recorded in the store: gc must consult all of them."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from obstore.store import ObjectStore
from sqlalchemy.engine import URL, make_url

from artifacts.actor import whoami
from artifacts.errors import StoreUnusable
from artifacts.registry import marker, publishing
from artifacts.registry.database import Database, connect
from artifacts.store.local import LocalStore
from artifacts.store.objects import list_objects, read, write

FOLDER = "registries"


def place_of(url: str) -> str:
    """URL of a registry without user, password and driver options: the same text for all of its users."""
    parsed = make_url(url)
    kind, database = parsed.get_backend_name(), parsed.database
    if kind == "sqlite" and database:
        # Users in different directories name the same file by different relative paths.
        database = str(Path(database).absolute())
    return URL.create(kind, host=parsed.host, port=parsed.port, database=database).render_as_string()


def _path(place: str) -> str:
    return f"{FOLDER}/{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def remember(store: LocalStore, url: str) -> None:
    """Record that a registry names artifacts of the store; call it before the first publication.

    The store's own registry needs no record; if it is not the one that versions were published to, a
    StoreUnusable. For a cache, the record is written to its remote store.
    """
    if store.remote is None and url == store.registry_url:
        require_same(store.shared, connect(url))
        return
    place = place_of(url)
    path = _path(place)
    if read(store.shared, path) is None:
        write(store.shared, path, json.dumps({"url": place, "by": whoami()}).encode())


def remember_own(store: LocalStore, url: str) -> None:
    """Record the store's own registry and its binding in a marker file, so that its loss is detected.

    Call it after a publication; a full disk is ignored, since the publication has already happened.
    """
    if store.remote is not None or url != store.registry_url:
        return
    marker_text = read(store.shared, marker.MARKER)
    if marker.bound_at(marker_text) is None:
        with connect(url).reading() as db:
            binding = publishing.bound_at(db)
        # A marker of an early version does not record the binding, and gets it with the next publication.
        if marker_text is None or binding is not None:
            with suppress(StoreUnusable):
                write(store.shared, marker.MARKER, marker.text(binding))


def foreign_registry_message(objects: ObjectStore, database: Database) -> str | None:
    """The message for a store's own registry that is not the one its versions were published to, or None."""
    binding = marker.bound_at(read(objects, marker.MARKER))
    if binding is None or not database.exists():
        return None
    with database.reading() as db:
        return None if publishing.bound_at(db) == binding else marker.OTHER


def require_same(objects: ObjectStore, database: Database) -> None:
    """Raise a StoreUnusable if the store's own registry was lost or replaced by another one."""
    if database.exists() and (problem := foreign_registry_message(objects, database)):
        raise StoreUnusable(f"registry {database.url} {problem}")


def missing_registry_message(store: LocalStore, url: str) -> str | None:
    """The message for a missing registry that versions of the store were published to.

    None for a registry without a record in the store: nothing was ever published to it.
    """
    own = store.remote is None and url == store.registry_url
    path = marker.MARKER if own else _path(place_of(url))
    if read(store.shared, path) is None:
        return None
    if own:
        return marker.GONE
    return (
        f"is missing, or has no tables: it named artifacts of this store ({path} in the store records it);"
        f" restore it from a backup, or remove {path} if it and its versions were given up on purpose"
    )


def require_all(objects: ObjectStore, urls: list[str]) -> None:
    """Raise a StoreUnusable if a recorded registry of the store is not among `urls`."""
    places = {place_of(url) for url in urls}
    for meta in list_objects(objects, FOLDER):
        text = read(objects, meta.path)
        url = None if text is None else _registry_url(text, meta.path)
        if url is not None and url not in places:
            raise StoreUnusable(
                f"registry {url} also names artifacts of this store, and gc was not told to read it; add"
                f" --also URL, or remove {meta.path} from the store if that registry no longer exists"
            )


def _registry_url(text: bytes, path: str) -> str:
    try:
        return str(json.loads(text)["url"])
    except (ValueError, KeyError, TypeError):
        raise StoreUnusable(
            f"{path} does not say which registry names artifacts of this store; remove it from the store once"
            " every registry of it is known and given with --also"
        ) from None
