"""Which registries name a store's artifacts, remembered in the store: gc asks all of them or none."""

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
from artifacts.store.objects import listed, read, write

FOLDER = "registries"


def place_of(url: str) -> str:
    """Where a registry is, the same for every user of it: without user, password and driver's options."""
    parsed = make_url(url)
    kind, database = parsed.get_backend_name(), parsed.database
    if kind == "sqlite" and database:
        database = str(Path(database).absolute())
    return URL.create(kind, host=parsed.host, port=parsed.port, database=database).render_as_string()


def _path(place: str) -> str:
    return f"{FOLDER}/{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def remember(store: LocalStore, url: str) -> None:
    """Record that a registry names artifacts of the store; to be called before it does.

    The one inside the store is asked anyway; where it is another than versions were published to, a
    StoreUnusable. What a cache is in front of is where it is recorded.
    """
    if store.remote is None and url == store.registry_url:
        require_same(store.shared, connect(url))
        return
    place = place_of(url)
    path = _path(place)
    if read(store.shared, path) is None:
        write(store.shared, path, json.dumps({"url": place, "by": whoami()}).encode())


def remember_own(store: LocalStore, url: str) -> None:
    """Record, where the registry is the store's own, that it has one, and which, so that its loss is noticed.

    To be called once something is published; a full disk does not undo that.
    """
    if store.remote is not None or url != store.registry_url:
        return
    marker_text = read(store.shared, marker.MARKER)
    if marker.bound_at(marker_text) is None:
        with connect(url).reading() as db:
            binding = publishing.bound_at(db)
        if marker_text is None or binding is not None:
            with suppress(StoreUnusable):
                write(store.shared, marker.MARKER, marker.text(binding))


def other(objects: ObjectStore, database: Database) -> str | None:
    """What to say of a store's own registry that is not the one that its versions were published to."""
    binding = marker.bound_at(read(objects, marker.MARKER))
    if binding is None or not database.exists():
        return None
    with database.reading() as db:
        return None if publishing.bound_at(db) == binding else marker.OTHER


def require_same(objects: ObjectStore, database: Database) -> None:
    """Refuse, as StoreUnusable, a store's own registry that is gone or in whose place is another."""
    if database.exists() and (problem := other(objects, database)):
        raise StoreUnusable(f"registry {database.url} {problem}")


def lost(store: LocalStore, url: str) -> str | None:
    """What to say of a registry that is not there though versions of the store were published to it.

    None where nothing of it is known: it never was.
    """
    own = store.remote is None and url == store.registry_url
    path = marker.MARKER if own else _path(place_of(url))
    if read(store.shared, path) is None:
        return None
    if own:
        return marker.GONE
    return (
        f"is gone, or has no tables: it named artifacts of this store ({path} in the store says so); restore"
        f" it from a backup, or remove {path} if it, and what it named, was given up on purpose"
    )


def require_all(objects: ObjectStore, urls: list[str]) -> None:
    """Raise a StoreUnusable if a registry that names the store's artifacts is not among those asked."""
    places = {place_of(url) for url in urls}
    for meta in listed(objects, FOLDER):
        text = read(objects, meta.path)
        url = None if text is None else _url(text, meta.path)
        if url is not None and url not in places:
            raise StoreUnusable(
                f"registry {url} names artifacts of this store too, and was not asked what it needs; add"
                f" --also URL, or remove {meta.path} from the store if that registry is gone"
            )


def _url(text: bytes, path: str) -> str:
    try:
        return str(json.loads(text)["url"])
    except (ValueError, KeyError, TypeError):
        raise StoreUnusable(
            f"{path} does not say which registry names artifacts of this store; remove it from the store once"
            " every registry of it is known and given with --also"
        ) from None
