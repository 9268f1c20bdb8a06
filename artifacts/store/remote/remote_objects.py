"""Requests to an object store, its refusals said in words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from artifacts.errors import StoreUnusable
from artifacts.store.objects import delete, require_short
from artifacts.store.remote.remote_place import CREDENTIALS, Patience, Place, connect

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CHUNK_BYTES = 1 << 20
"""A body is read in pieces of about so many bytes."""

SHORT_BYTES = 1 << 16
"""What is not longer is sent in no time worth speaking of."""

REASONS = {
    401: "it does not know these credentials; check {credentials}",
    403: "it refuses these credentials; check {credentials}, and what they may do in {bucket}",
    429: "it asks to be left alone; run again later",
    503: "it asks to slow down; run again later",
}
"""HTTP status -> what it means and what to do."""

NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|specified bucket does not exist")


class Dropped(Exception):
    """A body ended early or came to a halt; what was received of it is worth nothing."""


class Objects:
    """What the rest asks of an object store, below one prefix."""

    def __init__(self, place: Place, patience: Patience) -> None:
        self.place, self.patience = place, patience
        self.handle: ObjectStore = connect(place, patience)
        self._sending: ObjectStore = connect(place, patience, sending=True)

    def read(self, path: str) -> bytes | None:
        """An object's bytes; None where there is none. For small ones: it is held in memory."""
        with self._said("reading", path):
            try:
                found = obstore.get(self.handle, path)
                require_short(f"{self.place.url}/{path}", found.meta["size"])
                return bytes(found.bytes())
            except FileNotFoundError as exc:
                if NO_BUCKET.search(str(exc)):
                    raise self._no_bucket() from None
                return None

    def stream(self, path: str) -> Iterator[bytes]:
        """An object's bytes in pieces; a FileNotFoundError where there is none, Dropped if they end early."""
        with self._said("reading", path):
            found = obstore.get(self.handle, path)
        try:
            yield from found.stream(min_chunk_size=CHUNK_BYTES)
        except BaseError as exc:
            raise Dropped(_reason(exc)) from None

    def size(self, path: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._said("looking for", path):
            try:
                return int(obstore.head(self.handle, path)["size"])
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Make an object of the bytes, at once and complete; replaces what was there."""
        with self._said("writing", path):
            handle = self._sending if len(data) > SHORT_BYTES else self.handle
            try:
                obstore.put(handle, path, data, use_multipart=False)
            except FileNotFoundError:
                raise self._no_bucket() from None

    def create(self, path: str, data: bytes) -> None:
        """Make an object of the bytes unless there is one, where the server knows how to tell."""
        with self._said("writing", path):
            try:
                obstore.put(self.handle, path, data, use_multipart=False, mode="create")
            except AlreadyExistsError:
                return
            except FileNotFoundError:
                raise self._no_bucket() from None

    def listing(self, prefix: str) -> dict[str, int]:
        """Path -> bytes of every object below a prefix."""
        with self._said("listing", prefix):
            pages = obstore.list(self.handle, prefix, chunk_size=1000)
            return {found["path"]: found["size"] for page in pages for found in page}

    def remove(self, path: str) -> None:
        """Remove an object, if it is there."""
        with self._said("removing", path):
            delete(self.handle, [path])

    def _no_bucket(self) -> StoreUnusable:
        return StoreUnusable(
            f"there is no {self.place.scheme}://{self.place.bucket}; make it, or name another store"
        )

    @contextmanager
    def _said(self, doing: str, path: str) -> Iterator[None]:
        """Turns a refusal into a StoreUnusable; what obstore says may hold a signed URL and is not shown."""
        try:
            yield
        except BaseError as exc:
            if NO_BUCKET.search(str(exc)):
                raise self._no_bucket() from None
            raise StoreUnusable(f"{self.place.url}: {doing} {path} failed: {self._words(exc)}") from None

    def _words(self, exc: BaseError) -> str:
        status = _status(exc)
        if status in REASONS:
            return REASONS[status].format(
                credentials=CREDENTIALS[self.place.scheme], bucket=self.place.bucket
            )
        return f"{_reason(exc)}; see whether the store can be reached, then run again"


def _status(exc: BaseError) -> int | None:
    found = re.search(r"status code: (\d{3})", str(exc))
    return int(found.group(1)) if found else None


def _reason(exc: BaseError) -> str:
    """The cause in a few words, without URLs."""
    status = _status(exc)
    if status is not None:
        return f"status {status}"
    head = str(exc).partition("\n")[0]
    told = re.sub(r"\S+://\S+", "the server", head.rpartition(" - ")[2]).strip()
    return told or type(exc).__name__
