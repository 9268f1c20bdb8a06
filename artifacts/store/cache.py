"""The cache of a remote store in a local directory: verified, and bounded in size."""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artifacts.address import address, key_of, parse_address
from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, FileRecord, Manifest, read_manifest
from artifacts.store import disk, lease, tree
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from artifacts.store.local import LocalStore
from artifacts.store.lock import acquire, release
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.scratch import age_anew

log = logging.getLogger(__name__)

IDLE_S = 3600.0
"""Artifacts used more recently than this are not evicted, even without a lease."""


class Cache:
    """The local directory of a remote store; damaged files in it are fetched again."""

    def __init__(
        self, local: LocalStore, remote: RemoteStore, *, max_bytes: int | None, idle_s: float
    ) -> None:
        self.max_bytes, self.idle_s = max_bytes, idle_s
        self.root = local.root
        self._local, self._remote = local, remote

    def fetch(self, key: str, progress: Progress | None = None) -> None:
        """Make the cached artifact complete and verified; fetches only missing and damaged files.

        ArtifactCorrupt where the copy is damaged and the remote store does not have the artifact.
        """
        with self._sole(key):
            if self._local.intact(key):  # another process fetched it while this one waited
                return
            manifest = self._manifest_to_fetch(key)
            # Before the fetch, so that old artifacts make way for this one, and not for half of it.
            self.shrink(manifest.size_bytes)
            with self._remote.reading([key], f"the fetch of {manifest.kind} {key[:12]}"):
                self._fetch(key, manifest, progress)

    def file(self, key: str, name: str) -> Path:
        """Path of one verified file of the artifact; fetched alone if the artifact is not cached."""
        if not self._local.path(key).is_dir():
            with self._sole(key):
                if not self._local.path(key).is_dir():  # no other process fetched it meanwhile
                    return self._single(key, name)
        if not self._is_intact(key, name):
            self.fetch(key)
        return self._local.file(key, name)

    def shrink(self, needed_bytes: int = 0) -> list[str]:
        """Evict the least recently used artifacts until `needed_bytes` more fit; return the evicted keys.

        Both the cache's bound and the disk count. Artifacts that are not in the remote store, leased, or used
        recently are never evicted.
        """
        excess = needed_bytes - disk.free_bytes(self.root)
        if self.max_bytes is not None:
            # The stricter of both bounds decides.
            excess = max(excess, self.held_bytes() + needed_bytes - self.max_bytes)
        evicted: list[str] = []
        if excess <= 0:
            return evicted
        with lease.sweeping(self._local.objects, "eviction from the cache") as (marker, leases):
            leased = {key_of(key) for claim in leases for key in claim.keys}
            for key in self._by_last_use():
                if excess > 0 and key_of(key) not in leased and self._remote.has(self.content(key)):
                    # A marker that was not renewed in time does not hold new leases back any more.
                    marker.require()
                    excess -= self._evict(key)
                    evicted.append(key)
        if excess > 0:
            limit = "its disk" if self.max_bytes is None else f"its bound of {self.max_bytes:,}"
            log.warning(
                "the cache %s is %s bytes over %s; the rest is in use, or not in %s",
                *(self.root, f"{excess:,}", limit, self._remote.url),
            )
        return evicted

    def held_bytes(self) -> int:
        """Bytes of artifacts, single files and interrupted fetches in the cache."""
        folders = ("blobs", "objects", "files", "partial")
        return disk.allocated_bytes(*(self.root / folder for folder in folders))

    def _by_last_use(self) -> list[str]:
        """Idle keys, least recently used first, of artifacts in whole or with single files."""
        alone = [path.name for path in (self.root / "files").glob("*")]
        used = {key: self._used(key) for key in (*self._local.keys(), *alone)}
        for parent in (*self.root.glob("objects/??"), self.root / "files"):
            # Time stamps from a clock that ran ahead would make artifacts look used for ever.
            age_anew(parent)
        old = time.time() - self.idle_s
        return [key for key in sorted(used, key=used.__getitem__) if used[key] <= old]

    def content(self, name: str) -> str:
        """Address of the cached content with a name; the name itself where its manifest is unreadable."""
        try:
            return self._local.manifest(name).address
        except (NotFound, ArtifactCorrupt):
            return name

    def _used(self, key: str) -> float:
        """Time of the last use of an artifact, or of a file of it, in seconds since the epoch."""
        places = (self._local.path(key), self._singles(key))
        return max((path.stat().st_mtime for path in places if path.is_dir()), default=0.0)

    def _evict(self, key: str) -> int:
        """Remove all files of an artifact from the cache; return the bytes freed."""
        freed = disk.allocated_bytes(self._singles(key))
        shutil.rmtree(self._singles(key), ignore_errors=True)
        return freed + (self._local.remove(key) if self._local.path(key).is_dir() else 0)

    def _manifest_to_fetch(self, key: str) -> Manifest:
        """The remote store's manifest; logs that the cached copy is damaged, if there is one."""
        directory, content = self._local.path(key), self.content(key)
        if not directory.is_dir():
            return self._remote.manifest(key)
        try:
            manifest = self._remote.manifest(content if self._remote.has(content) else key)
        except NotFound:
            (problem, *_) = self._local.verify(key)
            raise ArtifactCorrupt(
                f"{directory}: {problem}; {self._remote.url} does not have it, so run its recipe again"
            ) from None
        log.warning("%s is damaged; its damaged files are fetched again from %s", directory, self._remote.url)
        return manifest

    def _fetch(self, key: str, manifest: Manifest, progress: Progress | None) -> None:
        """Fetch the content; other contents stay, except a damaged first one, which lookups would find."""
        local, content_address = self._local, manifest.address
        staging = self.root / "partial" / f"{manifest.key}.fetch"
        with self._reporting_full_disk(manifest, staging, manifest.size_bytes):
            present = local.blobs.sound(manifest.files.values())
            missing = {name: file for name, file in manifest.files.items() if file.sha256 not in present}
            to_fetch = self._reuse(key, missing, staging)
            self._remote.fetch_files(to_fetch, staging, progress)
            damaged = (
                local.discard(content_address) if local.path(content_address).is_dir() else None
            )  # its right files stay
            if local.path(key).is_dir() and not local.intact(key):
                # A damaged first content stands where lookups by key go; `receive` could only commit beside
                # it.
                local.discard(key)
            with local.receive(manifest) as draft:
                for name in missing:
                    (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
                    # Both are on one disk, so that no bytes are copied.
                    (staging / name).rename(draft.path / name)
                draft.digests.update({name: file.sha256 for name, file in to_fetch.items()})
            for folder in (staging, self._singles(key), *([damaged] if damaged else [])):
                shutil.rmtree(folder, ignore_errors=True)

    def _reuse(self, key: str, files: Mapping[str, FileRecord], staging: Path) -> dict[str, FileRecord]:
        """Link intact single files of the cache into `staging`; return the records of the other files."""
        to_fetch = dict(files)
        singles = tree.list_files(self._singles(key))
        for name, path in ((name, singles[name]) for name in files.keys() & singles.keys()):
            if not self._has_bytes(path, files[name]):
                continue
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(path, target)
            del to_fetch[name]
        return to_fetch

    def _is_intact(self, key: str, name: str) -> bool:
        """Whether a file of a cached artifact has the bytes of its record."""
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
        folder, staging = self._singles(key), self.root / "partial" / f"{key}.file"
        manifest = self._described(folder, key, staging)
        record, target = manifest.file(name), folder / name
        if not self._has_bytes(target, record):
            with self._reporting_full_disk(manifest, staging, record.size):
                self._remote.fetch_files({name: record}, staging)
                _settle(staging / name, target)
        shutil.rmtree(staging, ignore_errors=True)
        os.utime(folder)  # a use: eviction goes by the time of the folder
        return target

    def _described(self, folder: Path, key: str, staging: Path) -> Manifest:
        """The manifest of an artifact with single files, stored beside them so that they can be verified."""
        path = folder / MANIFEST
        try:
            manifest = read_manifest(path.read_bytes().decode(errors="replace"), str(path))
        except (FileNotFoundError, ArtifactCorrupt):
            manifest = self._remote.manifest(key)
            with self._reporting_full_disk(manifest, staging, 0):
                (staging / MANIFEST).write_text(manifest.to_text())
                _settle(staging / MANIFEST, path)
        return manifest

    def _singles(self, key: str) -> Path:
        """Directory of the files that were fetched without the rest of their artifact."""
        return self.root / "files" / address(*parse_address(key))

    @contextmanager
    def _sole(self, key: str) -> Iterator[None]:
        """Lock an artifact for fetching; a different lock from the one for building it."""
        path = self.root / "locks" / f"{parse_address(key)[0]}.fetch.lock"
        self._local.make_room()
        with ReportFullDisk(self.root, "a lock file"), ReportUnwritable(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = acquire(path)
        try:
            yield
        finally:
            release(path, handle)

    @contextmanager
    def _reporting_full_disk(self, manifest: Manifest, staging: Path, needed_bytes: int) -> Iterator[None]:
        label = f"{manifest.kind} {manifest.key[:12]}"
        instead = "give $ENGINERY_CACHE another directory"
        full = ReportFullDisk(self.root, label, needed_bytes=needed_bytes, draft=staging, instead=instead)
        with full, ReportUnwritable(self.root):
            full.require()
            staging.mkdir(parents=True, exist_ok=True)
            yield


def _settle(path: Path, target: Path) -> None:
    """Rename a finished file into place, read-only and on disk."""
    path.chmod(tree.READ_ONLY)
    tree.sync(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
