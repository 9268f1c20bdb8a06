"""Who uses and who builds what in a store: leases, which every machine sees, and locks of this one."""

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
from artifacts.store.disk import FullDiskSaid, UnwritableSaid, is_full
from artifacts.store.lock import PATIENCE_S, Waiting, acquire, release

if TYPE_CHECKING:
    from artifacts.store.remote.remote_store import RemoteStore

log = logging.getLogger(__name__)


class Holding:
    """What a store in a directory promises to those who use it; `LocalStore` is the whole."""

    root: Path
    remote: "RemoteStore | None" = None
    """What this store is a cache of."""

    def path(self, key: str) -> Path:
        """Directory that the artifact has, or will have."""
        raise NotImplementedError

    @cached_property
    def objects(self) -> Directory:
        """The store's directory as a store of objects, which is made where it does not exist."""
        with FullDiskSaid(self.root, "the store"), UnwritableSaid(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        return Directory(prefix=self.root)

    @property
    def shared(self) -> ObjectStore:
        """Where all machines that use the store meet: of a cache, what it is a cache of."""
        return self.objects if self.remote is None else self.remote.objects

    @contextmanager
    def lease(
        self,
        keys: Iterable[str],
        what: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> Iterator[lease.Lease]:
        """Keep artifacts, and those yet to be committed, from every sweep until the block ends."""
        wanted = list(keys)
        with lease.hold(self.objects, wanted, what, blobs=blobs, waiting=waiting) as held:
            self.touch(wanted)
            yield held

    @contextmanager
    def reading(self, keys: Iterable[str], what: str) -> Iterator[None]:
        """Keep artifacts that are only read from every sweep, as far as this process may write leases.

        Where it may not, or the disk is full to the last byte of the reserve, every byte that is read is
        verified all the same: a sweep meanwhile is loud.
        """
        with ExitStack() as stack:
            if self._may_lease():
                try:
                    stack.enter_context(self.lease(keys, what))
                except StoreUnusable as exc:
                    if not is_full(exc):
                        raise
                    log.warning("%s goes on without a lease, unseen by a gc meanwhile: %s", what, exc)
            yield

    def make_room(self) -> None:
        """See that something small can be written though the disk is full, as long as the reserve lasts."""
        reserve.make_room(self.root)

    def touch(self, keys: Iterable[str]) -> None:
        """Say that artifacts are used now: sweeps go by last use."""
        for key in keys:
            with suppress(FileNotFoundError, PermissionError):  # not built yet, or another user's
                os.utime(self.path(key))

    def _may_lease(self) -> bool:
        folder = self.root / claim.FOLDER
        return os.access(folder if folder.is_dir() else self.root, os.W_OK)

    @contextmanager
    def lock(
        self, key: str, *, waiting: Waiting | None = None, patience_s: float = PATIENCE_S
    ) -> Iterator[None]:
        """Hold the sole right to build `key`; tells `waiting` who has it meanwhile.

        It ends with the block or with the process. Look again whether the key is there once you hold it.
        A holder that keeps it longer than `patience_s` is a StoreBusy.
        """
        path = self.root / "locks" / f"{parse_address(key)[0]}.lock"
        self.make_room()
        with FullDiskSaid(self.root, "a lock file"), UnwritableSaid(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            held = acquire(path, waiting, patience_s)
        try:
            yield
        finally:
            release(path, held)
