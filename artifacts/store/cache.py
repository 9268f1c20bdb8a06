"""Copies of what a remote store has, in a directory of this machine: right, and within a bound."""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artifacts.address import address, key_of, parse_address
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, FileRecord, Manifest, read_manifest
from artifacts.store import disk, lease, tree
from artifacts.store.disk import FullDiskSaid, UnwritableSaid
from artifacts.store.draft import Progress
from artifacts.store.local import LocalStore
from artifacts.store.lock import acquire, release
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.scratch import age_anew

log = logging.getLogger(__name__)

IDLE_S = 3600.0
"""What was used more recently than this is not evicted, leased or not."""


class Cache:
    """The directory in front of a remote store; what is damaged in it is fetched again."""

    def __init__(
        self, local: LocalStore, remote: RemoteStore, *, max_bytes: int | None, idle_s: float
    ) -> None:
        self.max_bytes, self.idle_s = max_bytes, idle_s
        self.root = local.root
        self._local, self._remote = local, remote

    def fetch(self, key: str, progress: Progress | None = None) -> None:
        """Have the artifact here, whole and verified; only files that are not right here are fetched.

        A copy that is damaged and of which the remote store has no other is an ArtifactCorrupt.
        """
        with self._sole(key):
            if self._local.intact(key):  # somebody fetched it while we waited
                return
            manifest = self._wanted(key)
            self.shrink(manifest.size_bytes)
            with self._remote.reading([key], f"the fetch of {manifest.kind} {key[:12]}"):
                self._fetch(key, manifest, progress)

    def file(self, key: str, name: str) -> Path:
        """One file of the artifact, verified, which is fetched alone where the artifact is not here."""
        if not self._local.path(key).is_dir():
            with self._sole(key):
                if not self._local.path(key).is_dir():  # nobody fetched it while we waited
                    return self._single(key, name)
        if not self._is_right(key, name):
            self.fetch(key)
        return self._local.file(key, name)

    def shrink(self, needed_bytes: int = 0) -> list[str]:
        """Evict what is longest unused until `needed_bytes` more fit the bound and the disk; return its keys.

        Stays: what is not in the remote store, is leased, or was used just now.
        """
        excess = needed_bytes - disk.free_bytes(self.root)
        if self.max_bytes is not None:
            excess = max(excess, self.held_bytes() + needed_bytes - self.max_bytes)
        evicted: list[str] = []
        if excess <= 0:
            return evicted
        with lease.sweeping(self._local.objects, "eviction from the cache") as (marker, leases):
            leased = {key_of(key) for claim in leases for key in claim.keys}
            for key in self._by_last_use():
                if excess > 0 and key_of(key) not in leased and self._remote.has(self.content(key)):
                    marker.require()
                    excess -= self._evict(key)
                    evicted.append(key)
        if excess > 0:
            bound = "its disk" if self.max_bytes is None else f"its bound of {self.max_bytes:,}"
            log.warning(
                "the cache %s is %s bytes over %s; the rest is in use, or not in %s",
                *(self.root, f"{excess:,}", bound, self._remote.url),
            )
        return evicted

    def held_bytes(self) -> int:
        """Bytes of artifacts, files and interrupted fetches here."""
        folders = ("blobs", "objects", "files", "partial")
        return disk.allocated_bytes(*(self.root / folder for folder in folders))

    def _by_last_use(self) -> list[str]:
        """Keys of artifacts, and of those of which files are here, that were not used for a while."""
        alone = [path.name for path in (self.root / "files").glob("*")]
        used = {key: self._used(key) for key in (*self._local.keys(), *alone)}
        for parent in (*self.root.glob("objects/??"), self.root / "files"):
            age_anew(parent)
        old = time.time() - self.idle_s
        return [key for key in sorted(used, key=used.__getitem__) if used[key] <= old]

    def content(self, name: str) -> str:
        """The address of what is here under a name, as far as its manifest tells."""
        try:
            return self._local.manifest(name).address
        except (NotFound, ArtifactCorrupt):
            return name

    def _used(self, key: str) -> float:
        """When an artifact, or a file of it, was used last, seconds since the epoch."""
        places = (self._local.path(key), self._singles(key))
        return max((path.stat().st_mtime for path in places if path.is_dir()), default=0.0)

    def _evict(self, key: str) -> int:
        """Removes what is here of an artifact; returns bytes freed."""
        freed = disk.allocated_bytes(self._singles(key))
        shutil.rmtree(self._singles(key), ignore_errors=True)
        return freed + (self._local.remove(key) if self._local.path(key).is_dir() else 0)

    def _wanted(self, key: str) -> Manifest:
        """The manifest in the remote store, after it was said that what is here is damaged, if it is."""
        here, same = self._local.path(key), self.content(key)
        if not here.is_dir():
            return self._remote.manifest(key)
        try:
            manifest = self._remote.manifest(same if self._remote.has(same) else key)
        except NotFound:
            (problem, *_) = self._local.verify(key)
            raise ArtifactCorrupt(
                f"{here}: {problem}; {self._remote.url} does not have it, so run its recipe again"
            ) from None
        log.warning("%s is damaged; what is wrong is fetched again from %s", here, self._remote.url)
        return manifest

    def _fetch(self, key: str, manifest: Manifest, progress: Progress | None) -> None:
        """Fetches the content; other contents stay, but for a damaged one that builds would find first."""
        local, own = self._local, manifest.address
        aside = self.root / "partial" / f"{manifest.key}.fetch"
        with self._said(manifest, aside, manifest.size_bytes):
            held = local.blobs.sound(manifest.files.values())
            wanted = {name: file for name, file in manifest.files.items() if file.sha256 not in held}
            lacking = self._reuse(key, wanted, aside)
            self._remote.fetch_files(lacking, aside, progress)
            damaged = local.discard(own) if local.path(own).is_dir() else None  # its right files stay
            if local.path(key).is_dir() and not local.intact(key):
                local.discard(key)
            with local.receive(manifest) as draft:
                for name in wanted:
                    (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
                    (aside / name).rename(draft.path / name)
                draft.digests.update({name: file.sha256 for name, file in lacking.items()})
            for folder in (aside, self._singles(key), *([damaged] if damaged else [])):
                shutil.rmtree(folder, ignore_errors=True)

    def _reuse(self, key: str, files: Mapping[str, FileRecord], aside: Path) -> dict[str, FileRecord]:
        """Links files that were fetched alone and are right into `aside`; returns the others."""
        lacking = dict(files)
        singles = tree.list_files(self._singles(key))
        for name, path in ((name, singles[name]) for name in files.keys() & singles.keys()):
            if not self._has_bytes(path, files[name]):
                continue
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(path, target)
            del lacking[name]
        return lacking

    def _is_right(self, key: str, name: str) -> bool:
        """Whether a file of an artifact that is here has the bytes it should have."""
        try:
            record = self._local.manifest(key).file(name)
        except ArtifactCorrupt:
            return False
        return self._has_bytes(self._local.path(key) / name, record)

    def _has_bytes(self, path: Path, record: FileRecord) -> bool:
        if not path.is_file() or not tree.is_plain(path) or path.stat().st_size != record.size:
            return False
        return self._local.digests.digest(path) == record.sha256

    def _single(self, key: str, name: str) -> Path:
        folder, aside = self._singles(key), self.root / "partial" / f"{key}.file"
        manifest = self._described(folder, key, aside)
        record, target = manifest.file(name), folder / name
        if not self._has_bytes(target, record):
            with self._said(manifest, aside, record.size):
                self._remote.fetch_files({name: record}, aside)
                _settle(aside / name, target)
        shutil.rmtree(aside, ignore_errors=True)
        os.utime(folder)  # the cache evicts by last use
        return target

    def _described(self, folder: Path, key: str, aside: Path) -> Manifest:
        """The manifest of an artifact of which files are here, kept beside them to judge them by."""
        path = folder / MANIFEST
        try:
            manifest = read_manifest(path.read_bytes().decode(errors="replace"), str(path))
        except (FileNotFoundError, ArtifactCorrupt):
            manifest = self._remote.manifest(key)
            with self._said(manifest, aside, 0):
                (aside / MANIFEST).write_text(manifest.to_text())
                _settle(aside / MANIFEST, path)
        return manifest

    def _singles(self, key: str) -> Path:
        """Where files are that were fetched without the others of their artifact."""
        return self.root / "files" / address(*parse_address(key))

    @contextmanager
    def _sole(self, key: str) -> Iterator[None]:
        """Lets one process fetch an artifact at a time; another lock than that of who builds it."""
        path = self.root / "locks" / f"{parse_address(key)[0]}.fetch.lock"
        self._local.make_room()
        with FullDiskSaid(self.root, "a lock file"), UnwritableSaid(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            held = acquire(path)
        try:
            yield
        finally:
            release(path, held)

    @contextmanager
    def _said(self, manifest: Manifest, aside: Path, needed_bytes: int) -> Iterator[None]:
        what = f"{manifest.kind} {manifest.key[:12]}"
        instead = "give $ENGINERY_CACHE another directory"
        full = FullDiskSaid(self.root, what, needed_bytes=needed_bytes, draft=aside, instead=instead)
        with full, UnwritableSaid(self.root):
            full.require()
            aside.mkdir(parents=True, exist_ok=True)
            yield


def _settle(path: Path, target: Path) -> None:
    """Makes a finished file appear, read-only and on disk."""
    path.chmod(tree.READ_ONLY)
    tree.sync(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
