"""Where a collection removes artifacts: in a directory, or in a remote object store."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from obstore.store import ObjectStore

from artifacts.byte_progress import ItemProgress
from artifacts.collection import inventory
from artifacts.collection.inventory import Inventory
from artifacts.collection.inventory_remote import Reader
from artifacts.collection.marking import Plan
from artifacts.store import lock, objects, reserve, scratch
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from artifacts.store.lease import Lease
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_layout import manifest_path

BATCH = 500
"""Objects removed by one request, where the server takes several."""


class Place(Protocol):
    """The operations of a store that a collection needs."""

    objects: ObjectStore
    url: str
    """Its URL in messages."""

    def prepare(self, progress: ItemProgress) -> None:
        """Do the slow reading before builds and pulls have to wait for the collection."""

    def inventory(self, now: datetime, progress: ItemProgress) -> Inventory:
        """Everything the store holds; `now` is its own time."""

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: ItemProgress) -> None:
        """Remove what the plan names; work that may run without the sweep's marker is added to `later`."""


class LocalPlace:
    """A store in a directory."""

    def __init__(self, store: LocalStore) -> None:
        self.store, self.root, self.url = store, store.root, str(store.root)
        self.objects: ObjectStore = store.objects

    def prepare(self, progress: ItemProgress) -> None:
        """Make room for the sweep's marker on a full disk; nothing has to be read.

        Removes drafts of dead processes, then the digest cache: files are hashed again.
        """
        if not reserve.make_room(self.root):
            scratch.sweep(self.root / "staging")
            if not reserve.make_room(self.root):
                self.store.digests.clear()

    def inventory(self, now: datetime, progress: ItemProgress) -> Inventory:
        """Everything below the directory."""
        return inventory.local(self.root, now, progress)

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: ItemProgress) -> None:
        """Rename artifacts into a trash directory, which is fast and atomic; `later` frees the bytes."""
        shared = [self.store.blobs.path(sha256) for sha256 in self.store.blobs.digests()]
        # Registered before the trash, so that it runs after it: only then do contents without users show as
        # such.
        later.callback(self._tidy, self.store.digests.known(shared) if plan.removed else {}, time.time_ns())
        with ReportFullDisk(self.root, "a collection"), ReportUnwritable(self.root):
            self.store.make_room()
            for folder in (*self.root.glob("objects/??"), *(self.root / kind for kind in inventory.AGEING)):
                scratch.age_anew(folder)
            trash = later.enter_context(scratch.scratch(self.root / "staging", "gc"))
            paths = [*(self.store.slot(removal.key) for removal in plan.removed), *self._litter(plan)]
            for number, path in enumerate(paths, 1):
                marker.require()
                with suppress(FileNotFoundError):  # another sweep was here first
                    path.rename(trash / f"{number}")
                progress(number, len(paths), "removed")

    def _litter(self, plan: Plan) -> Iterator[Path]:
        return (self.root / item.place for item in plan.litter if item.kind != "staging")

    def _tidy(self, digests: Mapping[Path, str], since_ns: int) -> None:
        """Remove contents that no artifact uses, drafts of dead processes, and free locks.

        Removing a hard link changes the ctime of contents that other artifacts still have: their cached
        digests are confirmed, so that nothing is hashed again.
        """
        with ReportUnwritable(self.root):
            self.store.blobs.release(self.store.blobs.digests())
            self.store.digests.vouch(digests, since_ns)
            scratch.sweep(self.root / "staging")
            lock.sweep(self.root / "locks")
        reserve.keep(self.root)  # from the freed space


class RemotePlace:
    """A store of objects."""

    def __init__(self, objects: ObjectStore, url: str) -> None:
        self.objects, self.url = objects, url
        self._reader = Reader(objects)

    def prepare(self, progress: ItemProgress) -> None:
        """Read the manifests: thousands of requests in a large store."""
        self._reader.prepare(progress)

    def inventory(self, now: datetime, progress: ItemProgress) -> Inventory:
        """Everything in the store."""
        return self._reader.inventory(now, progress)

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: ItemProgress) -> None:
        """Delete manifests, then indexes, then contents: no manifest ever names a missing content."""
        orders = order(plan)
        done, total = 0, sum(map(len, orders))
        for paths in orders:
            for start in range(0, len(paths), BATCH):
                batch = paths[start : start + BATCH]
                marker.require()
                objects.remove(self.objects, batch)
                done += len(batch)
                progress(done, total, "removed")


def order(plan: Plan) -> tuple[list[str], ...]:
    """Objects in the order of removal: at any point, no manifest or index names a removed object."""
    places = [place for blob in plan.blobs.values() for place in blob.places]
    return (
        [manifest_path(item.key) for item in plan.removed],
        [place for place in places if place.endswith(".json")],
        [place for place in places if not place.endswith(".json")],
        [item.place for item in plan.litter],
    )


def place_of(store: LocalStore) -> Place:
    """The place of a store's artifacts: for a cache in front of a remote store, the remote store."""
    return LocalPlace(store) if store.remote is None else RemotePlace(store.remote.objects, store.url)
