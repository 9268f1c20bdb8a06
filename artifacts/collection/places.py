"""Where a collection removes things: a directory, or a remote store of objects."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from obstore.store import ObjectStore

from artifacts.collection import inventory
from artifacts.collection.inventory import Inventory, Progress
from artifacts.collection.inventory_remote import Reader
from artifacts.collection.marking import Plan
from artifacts.store import lock, objects, reserve, scratch
from artifacts.store.disk import FullDiskSaid, UnwritableSaid
from artifacts.store.lease import Lease
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_layout import manifest_path

BATCH = 500
"""Objects removed by one request, where the server takes several."""


class Place(Protocol):
    """A store as a collection sees it."""

    objects: ObjectStore
    url: str
    """Where it is, for people."""

    def prepare(self, progress: Progress) -> None:
        """Whatever can be read before anybody has to wait."""

    def inventory(self, now: datetime, progress: Progress) -> Inventory:
        """Everything the store holds; `now` is its own time."""

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: Progress) -> None:
        """Make what the plan names disappear; what needs no marker is left to `later`."""


class LocalPlace:
    """A store in a directory."""

    def __init__(self, store: LocalStore) -> None:
        self.store, self.root, self.url = store, store.root, str(store.root)
        self.objects: ObjectStore = store.objects

    def prepare(self, progress: Progress) -> None:
        """Nothing needs to be read; where there is no room for a marker, what nobody decides on goes first.

        Drafts of the dead, then what is only remembered of digests: the files are hashed again.
        """
        if not reserve.make_room(self.root):
            scratch.sweep(self.root / "staging")
            if not reserve.make_room(self.root):
                self.store.digests.clear()

    def inventory(self, now: datetime, progress: Progress) -> Inventory:
        """Everything below the directory."""
        return inventory.local(self.root, now, progress)

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: Progress) -> None:
        """Rename what goes out of the way, which is quick and whole; bytes are freed by `later`."""
        shared = [self.store.blobs.path(sha256) for sha256 in self.store.blobs.digests()]
        later.callback(self._tidy, self.store.digests.known(shared) if plan.removed else {}, time.time_ns())
        with FullDiskSaid(self.root, "a collection"), UnwritableSaid(self.root):
            self.store.make_room()
            for folder in (*self.root.glob("objects/??"), *(self.root / kind for kind in inventory.AGEING)):
                scratch.age_anew(folder)
            trash = later.enter_context(scratch.scratch(self.root / "staging", "gc"))
            going = [*(self.store.slot(one.key) for one in plan.removed), *self._litter(plan)]
            for number, path in enumerate(going, 1):
                marker.require()
                with suppress(FileNotFoundError):  # another sweep was here first
                    path.rename(trash / f"{number}")
                progress(number, len(going), "removed")

    def _litter(self, plan: Plan) -> Iterator[Path]:
        return (self.root / one.place for one in plan.litter if one.kind != "staging")

    def _tidy(self, known: Mapping[Path, str], since_ns: int) -> None:
        """Remove what needs no marker: contents without a user, drafts of the dead, locks nobody holds.

        A removed name moves the ctime of bytes that others still have: their digests stay known.
        """
        with UnwritableSaid(self.root):
            self.store.blobs.release(self.store.blobs.digests())
            self.store.digests.vouch(known, since_ns)
            scratch.sweep(self.root / "staging")
            lock.sweep(self.root / "locks")
        reserve.keep(self.root)  # of what has become free


class RemotePlace:
    """A store of objects."""

    def __init__(self, objects: ObjectStore, url: str) -> None:
        self.objects, self.url = objects, url
        self._reader = Reader(objects)

    def prepare(self, progress: Progress) -> None:
        """Read the manifests: thousands of requests in a large store."""
        self._reader.prepare(progress)

    def inventory(self, now: datetime, progress: Progress) -> Inventory:
        """Everything in the store."""
        return self._reader.inventory(now, progress)

    def remove(self, plan: Plan, marker: Lease, later: ExitStack, progress: Progress) -> None:
        """Delete manifests, then indexes, then contents: what is cut short leaves no half of anything."""
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
    """Objects in the order in which they go: where it ends, no manifest or index names what is gone."""
    places = [place for blob in plan.blobs.values() for place in blob.places]
    return (
        [manifest_path(one.key) for one in plan.removed],
        [place for place in places if place.endswith(".json")],
        [place for place in places if not place.endswith(".json")],
        [one.place for one in plan.litter],
    )


def place_of(store: LocalStore) -> Place:
    """Where a store's artifacts are kept: of a cache in front of a remote store, there."""
    return LocalPlace(store) if store.remote is None else RemotePlace(store.remote.objects, store.url)
