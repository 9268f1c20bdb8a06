"""Small objects in any kind of store, for records beside artifacts; translates errors of the client."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import ObjectStore

from artifacts.errors import ArtifactCorrupt, StoreUnusable

DOCUMENT_BYTES = 64 << 20
"""Largest object that is read into memory: the index of 14 TB is smaller."""


REMOVAL_S, PAUSE_S = 10.0, 0.1
"""Longest time for retries of a removal, and the first pause between them, which doubles."""

ANSWERED = re.compile(r"status code: \d{3}|LocalFileSystem")
"""Matches errors with a server's answer: the client has already retried those that can be retried."""


class Meta(NamedTuple):
    """Metadata of an object."""

    path: str
    size: int
    """Bytes."""
    modified: datetime
    """Time of the last write, by the store's clock."""
    tag: str | None
    """Changes with the bytes; None where the store has no tags."""


def read(objects: ObjectStore, path: str) -> bytes | None:
    """An object's bytes; None where there is none, ArtifactCorrupt for one that is too large."""
    try:
        with translate_errors(path):
            result = obstore.get(objects, path)
            require_short(path, result.meta["size"])
            return bytes(result.bytes())
    except FileNotFoundError:
        return None


def require_short(place: str, size: int) -> None:
    """Raise an ArtifactCorrupt for an object larger than any description of an artifact."""
    if size > DOCUMENT_BYTES:
        raise ArtifactCorrupt(
            f"{place} has {size:,} bytes; descriptions of artifacts have at most {DOCUMENT_BYTES:,};"
            " enginery did not write it"
        )


def write(objects: ObjectStore, path: str, data: bytes) -> None:
    """Write an object, replacing an existing one."""
    with translate_errors(path):
        obstore.put(objects, path, data)


def list_objects(objects: ObjectStore, folder: str) -> list[Meta]:
    """Metadata of every object below a folder."""
    with translate_errors(f"the list of {folder}"):
        return [
            Meta(entry["path"], entry["size"], entry["last_modified"], entry["e_tag"])
            for batch in obstore.list(objects, folder)
            for entry in batch
        ]


def remove(objects: ObjectStore, paths: Sequence[str]) -> None:
    """Remove objects, in one request where the server supports it; missing objects count as removed."""
    with translate_errors("a removal"):
        delete(objects, paths)


def delete(objects: ObjectStore, paths: Sequence[str]) -> None:
    """`remove` that raises the client's own errors.

    The client never retries a POST whose answer was late or lost. A removal is idempotent, so it is retried
    here.
    """
    deadline, pause_s = time.monotonic() + REMOVAL_S, PAUSE_S
    while True:
        try:
            return _delete(objects, paths)
        except GenericError as exc:
            if ANSWERED.search(str(exc)) or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s *= 2


def _delete(objects: ObjectStore, paths: Sequence[str]) -> None:
    try:
        obstore.delete(objects, paths)
    except FileNotFoundError:  # another process removed one, and some servers then skip the rest
        for path in paths:
            with suppress(FileNotFoundError):
                obstore.delete(objects, path)


@contextmanager
def translate_errors(subject: str) -> Iterator[None]:
    """Turns the client's errors into a StoreUnusable; a FileNotFoundError passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise StoreUnusable(
            f"{subject} cannot be read or written: {line(exc)}; check the store and its permissions"
        ) from exc


def line(exc: BaseException) -> str:
    """The first line of an error's text, without URLs, which may be signed; the rest are internals."""
    first = str(exc).partition("\n")[0]
    return re.sub(r"\S+://\S+", "the server", first) or type(exc).__name__
