"""Requests to an object store; translates its errors."""

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
"""Approximate size of the pieces in which a body is read."""

SHORT_BYTES = 1 << 16
"""Objects up to this size are sent fast enough for the normal read timeout."""

REASONS = {
    401: "the credentials are unknown; check {credentials}",
    403: "access denied; check {credentials}, and their permissions in {bucket}",
    429: "too many requests; run again later",
    503: "the server is overloaded; run again later",
}
"""HTTP status -> cause and remedy."""

NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|specified bucket does not exist")


class Dropped(Exception):
    """A body ended early or stalled; the bytes received are incomplete."""


class Objects:
    """The requests that enginery makes to an object store, below one prefix."""

    def __init__(self, place: Place, patience: Patience) -> None:
        self.place, self.patience = place, patience
        self.handle: ObjectStore = connect(place, patience)
        self._sending: ObjectStore = connect(place, patience, sending=True)

    def read(self, path: str) -> bytes | None:
        """A small object's bytes; None where there is none."""
        with self._translate_errors("reading", path):
            try:
                result = obstore.get(self.handle, path)
                # Checked before the body is read: a wrong object must not fill the memory.
                require_short(f"{self.place.url}/{path}", result.meta["size"])
                return bytes(result.bytes())
            except FileNotFoundError as exc:
                if NO_BUCKET.search(str(exc)):
                    raise self._no_bucket() from None
                return None

    def stream(self, path: str) -> Iterator[bytes]:
        """An object's bytes in pieces; FileNotFoundError where there is none, Dropped if they end early."""
        with self._translate_errors("reading", path):
            result = obstore.get(self.handle, path)
        try:
            yield from result.stream(min_chunk_size=CHUNK_BYTES)
        except BaseError as exc:
            # The caller repeats the request: the client retries requests, not bodies that end early.
            raise Dropped(_reason(exc)) from None

    def size(self, path: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._translate_errors("looking for", path):
            try:
                return int(obstore.head(self.handle, path)["size"])
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write an object atomically, replacing an existing one."""
        with self._translate_errors("writing", path):
            # Only large bodies: for small requests, the read timeout notices a dead server much earlier.
            handle = self._sending if len(data) > SHORT_BYTES else self.handle
            try:
                obstore.put(handle, path, data, use_multipart=False)
            except FileNotFoundError:
                raise self._no_bucket() from None

    def create(self, path: str, data: bytes) -> None:
        """Write an object unless it exists; servers without conditional writes replace it."""
        with self._translate_errors("writing", path):
            try:
                obstore.put(self.handle, path, data, use_multipart=False, mode="create")
            except AlreadyExistsError:
                return
            except FileNotFoundError:
                raise self._no_bucket() from None

    def listing(self, prefix: str) -> dict[str, int]:
        """Path -> bytes of every object below a prefix."""
        with self._translate_errors("listing", prefix):
            pages = obstore.list(self.handle, prefix, chunk_size=1000)
            return {entry["path"]: entry["size"] for page in pages for entry in page}

    def remove(self, path: str) -> None:
        """Remove an object; a missing one is no error."""
        with self._translate_errors("removing", path):
            delete(self.handle, [path])

    def _no_bucket(self) -> StoreUnusable:
        return StoreUnusable(
            f"there is no bucket {self.place.scheme}://{self.place.bucket}; create it, or name another store"
        )

    @contextmanager
    def _translate_errors(self, action: str, path: str) -> Iterator[None]:
        """Turns the client's errors into a StoreUnusable without their text, which may hold a signed URL."""
        try:
            yield
        except BaseError as exc:
            if NO_BUCKET.search(str(exc)):
                raise self._no_bucket() from None
            raise StoreUnusable(f"{self.place.url}: {action} {path} failed: {self._words(exc)}") from None

    def _words(self, exc: BaseError) -> str:
        status = _status(exc)
        if status in REASONS:
            return REASONS[status].format(
                credentials=CREDENTIALS[self.place.scheme], bucket=self.place.bucket
            )
        return f"{_reason(exc)}; check that the store can be reached, then run again"


def _status(exc: BaseError) -> int | None:
    match = re.search(r"status code: (\d{3})", str(exc))
    return int(match.group(1)) if match else None


def _reason(exc: BaseError) -> str:
    """The cause of an error in a few words, without URLs."""
    status = _status(exc)
    if status is not None:
        return f"status {status}"
    head = str(exc).partition("\n")[0]
    # Addresses may be signed, and then let their reader in.
    cause = re.sub(r"\S+://\S+", "the server", head.rpartition(" - ")[2]).strip()
    return cause or type(exc).__name__
