"""Small objects in a store of any kind, for what is kept beside artifacts; refusals are said in words."""

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
"""Longest object that is read into memory as a whole: the index of 14 TB is shorter."""


REMOVAL_S, PAUSE_S = 10.0, 0.1
"""How long a removal is repeated, and the first pause before that, which doubles."""

ANSWERED = re.compile(r"status code: \d{3}|LocalFileSystem")
"""What an error says that is an answer, which the client has repeated as long as that makes sense."""


class Meta(NamedTuple):
    """What a store says of an object without reading it."""

    path: str
    size: int
    """Bytes."""
    modified: datetime
    """When it was written last, by the store's clock."""
    tag: str | None
    """Another one means other bytes, where the store has tags."""


def read(objects: ObjectStore, path: str) -> bytes | None:
    """An object's bytes; None where there is none, an ArtifactCorrupt for one that is no document of ours."""
    try:
        with translate_errors(path):
            result = obstore.get(objects, path)
            require_short(path, result.meta["size"])
            return bytes(result.bytes())
    except FileNotFoundError:
        return None


def require_short(place: str, size: int) -> None:
    """Refuse to hold an object in memory that is longer than any description is, as ArtifactCorrupt."""
    if size > DOCUMENT_BYTES:
        raise ArtifactCorrupt(
            f"{place} has {size:,} bytes, and what describes artifacts has at most {DOCUMENT_BYTES:,};"
            " it was not written by enginery"
        )


def write(objects: ObjectStore, path: str, data: bytes) -> None:
    """Make an object of the bytes, in place of what was there."""
    with translate_errors(path):
        obstore.put(objects, path, data)


def list_objects(objects: ObjectStore, folder: str) -> list[Meta]:
    """Every object in a folder and the folders in it."""
    with translate_errors(f"the list of {folder}"):
        return [
            Meta(entry["path"], entry["size"], entry["last_modified"], entry["e_tag"])
            for batch in obstore.list(objects, folder)
            for entry in batch
        ]


def remove(objects: ObjectStore, paths: Sequence[str]) -> None:
    """Remove objects in one request where the server takes several; those that are gone count as removed."""
    with translate_errors("a removal"):
        delete(objects, paths)


def delete(objects: ObjectStore, paths: Sequence[str]) -> None:
    """`remove` with the client's own errors.

    The client repeats no such request whose answer was late or lost, since it is a POST: this one may be
    repeated.
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
    except FileNotFoundError:  # somebody was here first, and some servers stop there
        for path in paths:
            with suppress(FileNotFoundError):
                obstore.delete(objects, path)


@contextmanager
def translate_errors(subject: str) -> Iterator[None]:
    """Turns a refusal into a StoreUnusable; that there is nothing of a name stays a FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise StoreUnusable(
            f"{subject} cannot be read or written: {line(exc)}; check the store and the rights on it"
        ) from exc


def line(exc: BaseException) -> str:
    """The first line of what an error says, without addresses; the others are its source's innards."""
    first = str(exc).partition("\n")[0]
    return re.sub(r"\S+://\S+", "the server", first) or type(exc).__name__
