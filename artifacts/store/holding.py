"""Leases, which processes on every machine see, and locks, which are local to this machine."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.store import LocalStore as Directory
from obstore.store import ObjectStore

from artifacts.address import parse_address
from artifacts.errors import StoreUnusable
from artifacts.store import claim, lease, reserve
from artifacts.store.disk import ReportFullDisk, ReportUnwritable, is_full
from artifacts.store.lock import PATIENCE_S, Waiting, acquire, release

if TYPE_CHECKING:
    from artifacts.store.remote.remote_store import RemoteStore

log = logging.getLogger(__name__)


class Holding:
    """Leases and locks of a store in a directory; the base of `LocalStore`."""

    root: Path
    remote: "RemoteStore | None" = None
    """The remote store that this store caches, if any."""

    def path(self, key: str) -> Path:
        """Directory of the artifact, existing or not."""
        raise NotImplementedError

    @cached_property
    def objects(self) -> Directory:
        """The store's directory as an object store; creates the directory."""
        with ReportFullDisk(self.root, "the store"), ReportUnwritable(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        return Directory(prefix=self.root)

    @property
    def shared(self) -> ObjectStore:
        """The object store that all machines share: for a cache, that of its remote store."""
        return self.objects if self.remote is None else self.remote.objects

    @contextmanager
    def lease(
        self,
        keys: Iterable[str],
        purpose: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> Iterator[lease.Lease]:
        """Protect artifacts, committed or not yet, from every sweep until the block ends."""
        key_list = list(keys)
        with lease.hold(self.objects, key_list, purpose, blobs=blobs, waiting=waiting) as lease_:
            # Inside the lease: a sweep that began before it has ended by now.
            self.touch(key_list)
            yield lease_

    @contextmanager
    def reading(self, keys: Iterable[str], purpose: str) -> Iterator[None]:
        """Protect artifacts that are only read from every sweep, if this process may write leases.

        Without permission, or on a disk that is full beyond the reserve, the block runs without a lease:
        readers verify every byte, so that a sweep meanwhile causes an error.
        """
        with ExitStack() as stack:
            if self._may_lease():
                try:
                    stack.enter_context(self.lease(keys, purpose))
                except StoreUnusable as exc:
                    if not is_full(exc):
                        raise
                    log.warning("%s runs without a lease, invisible to gc: %s", purpose, exc)
            yield

    def make_room(self) -> None:
        """Free space from the reserve so that a small file can be written on a full disk."""
        reserve.make_room(self.root)

    def touch(self, keys: Iterable[str]) -> None:
        """Record that artifacts are used now; sweeps and evictions go by last use."""
        for key in keys:
            with suppress(FileNotFoundError, PermissionError):  # not built yet, or another user's
                os.utime(self.path(key))

    def _may_lease(self) -> bool:
        folder = self.root / claim.FOLDER
        # The folder of leases decides: an administrator may open only that one to readers.
        return os.access(folder if folder.is_dir() else self.root, os.W_OK)

    @contextmanager
    def lock(
        self, key: str, *, waiting: Waiting | None = None, patience_s: float = PATIENCE_S
    ) -> Iterator[None]:
        """Hold the lock for building `key`; calls `waiting` with the holder while it waits.

        The lock ends with the block or with the process. After acquiring it, check again whether the key was
        committed meanwhile. StoreBusy where another process holds it longer than `patience_s`.
        """
        # One lock for all contents of a key: a build cannot know its content beforehand.
        path = self.root / "locks" / f"{parse_address(key)[0]}.lock"
        self.make_room()
        with ReportFullDisk(self.root, "a lock file"), ReportUnwritable(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = acquire(path, waiting, patience_s)
        try:
            yield
        finally:
            release(path, handle)
