"""Leases: objects in the store that protect artifacts in use from sweeps on any machine.

A holder renews its lease regularly; a lease is dead once its age, by the store's clock, is twice its time to
live. A sweep has such an object too, its marker. Both are in one folder, and each side writes its own object
before it lists the others', so that of a builder and a concurrent sweep at least one sees the other: the
sweep spares artifacts that leases name, and a lease that begins during a sweep waits for its end. Only the
store's clock counts, never those of the hosts.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import obstore
from obstore.store import LocalStore as Directory
from obstore.store import ObjectStore

from artifacts.actor import whoami
from artifacts.errors import LeaseLost, StoreBusy, StoreUnusable
from artifacts.store import reserve
from artifacts.store.claim import FOLDER, SWEEP, Claim, claims
from artifacts.store.disk import ReportFullDisk
from artifacts.store.objects import remove, translate_errors

log = logging.getLogger(__name__)

TTL_S = 60.0
"""A holder that could not renew its lease for this long has lost it; others wait twice as long."""

RENEWALS = 4
"""Attempts to renew within that time."""

WAIT_S = 15 * 60.0
"""Longest wait of a new lease for a running sweep."""

POLL_S = (0.05, 2.0)
"""Shortest and longest pause between two polls of a sweep."""

Waiting = Callable[[str], None]
"""Receives one message per sweep that is waited for."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that also runs while the machine is suspended, where the system has one."""


class Lease:
    """A lease or sweep marker that this process holds."""

    def __init__(self, objects: ObjectStore, name: str, document: Mapping[str, Any]) -> None:
        self.path = f"{FOLDER}/{name}.json"
        self.ttl_s = float(document["ttl_s"])
        self._objects, self._root = objects, _root(objects)
        self._text = json.dumps(document).encode()
        self._renewed_at = time.clock_gettime(_CLOCK)
        self._lost = self._written = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=self.path, daemon=True)

    def require(self) -> None:
        """Raise a LeaseLost if other processes may consider this lease dead: a sweep may have ignored it.

        Call it before and after a commit.
        """
        silent_s = time.clock_gettime(_CLOCK) - self._renewed_at
        if self._lost or silent_s > self.ttl_s:
            self._lost = True
            raise LeaseLost(
                f"{self.path} was not renewed within {self.ttl_s:g} s, or was removed; run again, what was"
                " finished is kept"
            )

    def renew(self) -> datetime:
        """Write the object again; return the store's time of the write."""
        asked_at = time.clock_gettime(_CLOCK)  # the store's time of the write is not earlier than this
        if self._root is not None:
            reserve.make_room(self._root)
        with translate_errors("a lease"), self._full():
            # A sweep removes leases that it considers dead, e.g. after the store's clock was set forward.
            # Then writing the object again would hide that the protection was interrupted.
            if self._written:
                self._lost = self._lost or not self._is_there()
            obstore.put(self._objects, self.path, self._text)
            self._written = True
            written_at = obstore.head(self._objects, self.path)["last_modified"]
        # A renewal that comes too late does not help: a sweep may have run in the gap.
        self._lost = self._lost or asked_at - self._renewed_at > self.ttl_s
        # The time before the request: the renewal took effect no earlier, so the lease never seems younger
        # than it is.
        self._renewed_at = asked_at
        return written_at

    def _full(self) -> AbstractContextManager[object]:
        """Report a full disk of this machine with the bytes that a lease needs; nothing for a server."""
        if self._root is None:
            return nullcontext()
        return ReportFullDisk(self._root, "a lease", needed_bytes=reserve.ROOM_BYTES)

    def _is_there(self) -> bool:
        try:
            obstore.head(self._objects, self.path)
        except FileNotFoundError:
            return False
        return True

    def begin(self) -> datetime:
        """Write the object and renew it in the background until `end`; return the store's time."""
        now = self.renew()
        self._thread.start()
        return now

    def end(self) -> None:
        """Stop renewing and remove the object; if the removal fails, the lease expires by itself."""
        # Join before the removal; otherwise a renewal in flight would write the object again.
        self._ended.set()
        self._thread.join()
        try:
            remove(self._objects, [self.path])
        except StoreUnusable as exc:
            log.warning("%s could not be removed; it expires in %g s: %s", self.path, 2 * self.ttl_s, exc)
        if self._root is not None:
            reserve.keep(self._root)

    def _keep(self) -> None:
        while not self._ended.wait(self.ttl_s / RENEWALS):
            try:
                self.renew()
            except FileNotFoundError:  # a sweep removed it between the write and the request for its time
                self._lost = True
            except StoreUnusable as exc:
                # Several attempts fit into the time to live, so a short outage loses nothing.
                log.warning("%s could not be renewed, trying again: %s", self.path, exc)


@contextmanager
def hold(
    objects: ObjectStore,
    keys: Iterable[str],
    purpose: str,
    *,
    blobs: Iterable[str] = (),
    ttl_s: float | None = None,
    waiting: Waiting | None = None,
) -> Iterator[Lease]:
    """Protect artifacts and contents from every sweep until the block ends; waits for running sweeps first.

    Check which artifacts exist only inside the block. StoreBusy where a sweep takes longer than `WAIT_S`.
    """
    document = {
        "keys": sorted(set(keys)),
        "blobs": sorted(set(blobs)),
        "what": purpose,
        "ttl_s": ttl_s or TTL_S,
    }
    lease = Lease(objects, uuid.uuid4().hex, {**document, "holder": whoami()})
    # Written before sweeps are listed, as a sweep writes its marker before it lists leases: one of them sees
    # the other.
    now = lease.begin()
    try:
        _wait_for_sweeps(objects, lease, now, waiting or _log_waiting)
        yield lease
    finally:
        lease.end()


@contextmanager
def sweeping(
    objects: ObjectStore, purpose: str, *, ttl_s: float | None = None
) -> Iterator[tuple[Lease, list[Claim]]]:
    """Make new leases wait until the block ends; yield this sweep's marker and every live lease.

    Plan removals only inside the block, and call the marker's `require` before each removal. Concurrent
    sweeps are safe: each spares the artifacts that leases name. Dead leases and markers are removed.
    """
    document = {"keys": [], "blobs": [], "what": purpose, "holder": whoami(), "ttl_s": ttl_s or TTL_S}
    marker = Lease(objects, SWEEP + uuid.uuid4().hex, document)
    # Written before leases are listed: a lease that is missing in the list began later, sees the marker, and
    # waits.
    now = marker.begin()
    try:
        all_claims = list(claims(objects, now))
        for claim in all_claims:
            # All leases are read before any is removed: one that cannot be read may protect anything, and
            # stops the sweep.
            if not claim.is_sweep:
                claim.require_readable()
        for claim in all_claims:
            if claim.is_dead:
                remove(objects, [claim.path])
        yield marker, [claim for claim in all_claims if not claim.is_dead and not claim.is_sweep]
    finally:
        marker.end()


def _wait_for_sweeps(objects: ObjectStore, lease: Lease, now: datetime, waiting: Waiting) -> None:
    """Wait for sweeps that were running when the lease was written; later ones see the lease."""
    pause, deadline = POLL_S[0], time.monotonic() + WAIT_S
    sweeps = _sweeps(objects, now)
    for sweep in sweeps.values():
        waiting(f"waiting for {sweep.what} by {sweep.holder}, at most {WAIT_S / 60:g} minutes")
    while sweeps:
        if time.monotonic() > deadline:
            sweep = next(iter(sweeps.values()))
            raise StoreBusy(
                f"{sweep.what} by {sweep.holder} takes longer than {WAIT_S / 60:g} minutes ({sweep.path} was"
                f" renewed {sweep.age_s:.0f} s ago); run again when it has ended"
            )
        time.sleep(pause)
        pause = min(2 * pause, POLL_S[1])
        # Only sweeps from the first list count: a later one has listed this lease, so waiting for it is
        # needless and could go on for ever.
        current = _sweeps(objects, lease.renew())
        sweeps = {path: sweep for path, sweep in sweeps.items() if path in current}


def _sweeps(objects: ObjectStore, now: datetime) -> dict[str, Claim]:
    return {claim.path: claim for claim in claims(objects, now, prefix=SWEEP) if not claim.is_dead}


def _root(objects: ObjectStore) -> Path | None:
    """The directory of a store on a local disk; None for a server."""
    return objects.prefix if isinstance(objects, Directory) else None


def _log_waiting(message: str) -> None:
    log.warning("%s", message)
