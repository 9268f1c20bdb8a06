"""A remote store behind a directory of this machine: what is used is fetched once, what is made is pushed."""

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from obstore.exceptions import PermissionDeniedError

from artifacts import disk, lease, tree
from artifacts.disk import FullDiskSaid, UnwritableSaid
from artifacts.draft import Draft, Progress, Source
from artifacts.errors import StoreUnknown, StoreUnusable
from artifacts.lock import acquire, release
from artifacts.manifest import FileRecord, Manifest
from artifacts.remote.store import RemoteStore
from artifacts.store import LocalStore

log = logging.getLogger(__name__)

IDLE_S = 3600.0
"""What was used more recently than this is not evicted, leased or not."""


class CachedStore(LocalStore):
    """A remote store with the methods of a local one.

    What was committed is what is in the cache or in the remote store. A commit goes to both; a read fetches
    what the cache lacks. `local` and `remote` are the two by themselves.
    """

    def __init__(
        self, remote: RemoteStore, root: Path, *, max_bytes: int | None = None, idle_s: float = IDLE_S
    ) -> None:
        super().__init__(root)
        self.remote = remote
        self.local = LocalStore(root)
        self.max_bytes, self.idle_s = max_bytes, idle_s

    @property
    def id(self) -> str:
        """The id of the remote store, under any URL and from any cache."""
        return self.remote.id

    def source(self) -> Source:
        """Where right bytes can be had when the cache's are damaged."""
        return self.remote

    @property
    def url(self) -> str:
        """What opens this store."""
        return self.remote.url

    @property
    def registry_url(self) -> str:
        """A remote store has no registry in it: raises a StoreUnknown that says what to name."""
        raise StoreUnknown(
            f"no registry is named for the store {self.remote.url}; give --registry or $ENGINERY_REGISTRY, "
            "e.g. postgresql://USER@HOST/DATABASE"
        )

    def has(self, key: str) -> bool:
        """Whether the artifact was committed, here or in the remote store."""
        return self.local.has(key) or self.remote.has(key)

    def keys(self) -> list[str]:
        """Keys of everything committed, here or in the remote store, sorted."""
        return sorted({*self.local.keys(), *self.remote.keys()})

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where it was changed."""
        return self.local.manifest(key) if self.local.has(key) else self.remote.manifest(key)

    def directory(self, key: str, progress: Progress | None = None) -> Path:
        """The artifact's directory, after what is missing of it was fetched and verified."""
        if not self.local.has(key):
            self._fetch(key, progress)
        os.utime(self.path(key))  # the cache evicts by last use
        return self.path(key)

    def file(self, key: str, name: str) -> Path:
        """One file of the artifact, which is fetched alone where the cache lacks it."""
        if self.local.has(key):
            return self.local.file(key, name)
        target = self._singles(key) / name
        if not target.is_file():
            self._fetch_file(key, name, target)
        return target

    def bring(self, manifest: Manifest, into: Path, progress: Progress | None = None) -> None:
        """Make the files below `into` those of an artifact, writable ones of its own; remove all others.

        What is right there, or in the cache, is not fetched.
        """
        for name, path in tree.list_files(into).items():
            if name not in manifest.files:
                path.unlink()
        held = self.local.blobs.sound(manifest.files.values())
        for name, file in manifest.files.items():
            target = into / name
            if file.sha256 in held and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.local.blobs.path(file.sha256), target)
        self.remote.fetch_files(manifest.files, into, progress)  # which reads what is there first

    @contextmanager
    def write(
        self, key: str, *, kind: str, step: Mapping[str, Any], host: Mapping[str, Any], needed_bytes: int = 0
    ) -> Iterator[Draft]:
        """Yield a draft; commit it here if the block succeeds, then push it; else discard it.

        A push that fails leaves the artifact here: `push` continues it.
        """
        with self.local.write(key, kind=kind, step=step, host=host, needed_bytes=needed_bytes) as draft:
            yield draft
        self.push(key, draft.progress)
        self.shrink()

    def push(self, key: str, progress: Progress | None = None) -> None:
        """Send the artifact to the remote store if it is here and not there."""
        if self.local.has(key):
            self.remote.push(self.path(key), self.local.manifest(key), progress)

    def intact(self, key: str) -> bool:
        """Whether every file in the cache is what was committed; others are verified when fetched."""
        return self.local.intact(key) if self.local.has(key) else self.remote.has(key)

    def verify(self, key: str) -> list[str]:
        """Everything wrong with the artifact in the cache, else in the remote store, by reading all of it."""
        return self.local.verify(key) if self.local.has(key) else self.remote.verify(key)

    def prepare(self) -> None:
        """Prove that cache and remote store can be written, by writing; otherwise a StoreUnusable."""
        self.local.prepare()
        self.remote.prepare()

    @contextmanager
    def lease(
        self,
        keys: Iterable[str],
        what: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> Iterator[lease.Lease]:
        """Keep artifacts from sweeps of the cache and of the remote store until the block ends."""
        wanted = list(keys)
        with ExitStack() as stack:
            held = stack.enter_context(self.local.lease(wanted, what, blobs, waiting=waiting))
            try:
                stack.enter_context(self.remote.lease(wanted, what, blobs, waiting=waiting))
            except StoreUnusable as exc:
                if not isinstance(exc.__cause__, PermissionDeniedError):
                    raise
                log.info("%s may only be read, so that no lease is written there", self.remote.url)
            yield held

    def _fetch(self, key: str, progress: Progress | None) -> None:
        manifest, aside = self.remote.manifest(key), self.root / "partial" / f"{key}.fetch"
        with self._sole(key):
            if self.local.has(key):
                return
            self.shrink(manifest.size_bytes)
            with self._said(manifest, aside):
                wanted = self._without_held(manifest.files)
                lacking = self._reuse(key, wanted, aside)
                self.remote.fetch_files(lacking, aside, progress)
                with self.local.receive(manifest) as draft:
                    for name in wanted:
                        (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
                        (aside / name).rename(draft.path / name)
                    draft.digests.update({name: file.sha256 for name, file in lacking.items()})
                shutil.rmtree(aside, ignore_errors=True)
                shutil.rmtree(self._singles(key), ignore_errors=True)

    def _without_held(self, files: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
        """The files with contents that no artifact in the cache has."""
        held = self.local.blobs.sound(files.values())
        return {name: file for name, file in files.items() if file.sha256 not in held}

    def _reuse(self, key: str, files: Mapping[str, FileRecord], aside: Path) -> dict[str, FileRecord]:
        """Links files that were fetched alone into `aside`; returns the others."""
        lacking = dict(files)
        singles = tree.list_files(self._singles(key))
        for name, path in ((name, singles[name]) for name in files.keys() & singles.keys()):
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(path, target)
            del lacking[name]
        return lacking

    def _fetch_file(self, key: str, name: str, target: Path) -> None:
        manifest, aside = self.remote.manifest(key), self.root / "partial" / f"{key}.file"
        record = manifest.file(name)
        with self._sole(key), self._said(manifest, aside):
            self.remote.fetch_files({name: record}, aside)
            (aside / name).chmod(tree.READ_ONLY)
            tree.sync(aside / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (aside / name).replace(target)
            shutil.rmtree(aside, ignore_errors=True)

    def _singles(self, key: str) -> Path:
        """Where files are that were fetched without the others of their artifact."""
        return self.root / "files" / self.path(key).name

    @contextmanager
    def _sole(self, key: str) -> Iterator[None]:
        """Lets one process fetch an artifact at a time; another lock than that of who builds it."""
        path = self.root / "locks" / f"{key}.fetch.lock"
        with UnwritableSaid(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            held = acquire(path)
        try:
            yield
        finally:
            release(path, held)

    @contextmanager
    def _said(self, manifest: Manifest, aside: Path) -> Iterator[None]:
        what = f"{manifest.kind} {manifest.key[:12]}"
        full = FullDiskSaid(self.root, what, needed_bytes=manifest.size_bytes, draft=aside)
        with full, UnwritableSaid(self.root):
            full.require()
            aside.mkdir(parents=True, exist_ok=True)
            yield

    def shrink(self, needed_bytes: int = 0) -> list[str]:
        """Evict what is longest unused until `needed_bytes` more fit the bound; return its keys.

        Stays: what is not in the remote store, is leased, or was used just now.
        """
        excess = self.held_bytes() + needed_bytes - self.max_bytes if self.max_bytes is not None else 0
        evicted: list[str] = []
        if excess <= 0:
            return evicted
        with lease.sweeping(self.local.objects, "eviction from the cache") as (marker, leases):
            leased = {key for claim in leases for key in claim.keys}
            for key in self._by_last_use():
                if excess > 0 and key not in leased and self.remote.has(key):
                    marker.require()
                    excess -= self.local.remove(key)
                    evicted.append(key)
        if excess > 0:
            log.warning(
                "the cache %s is %s bytes over its bound of %s; the rest is in use, or not in %s",
                *(self.root, f"{excess:,}", f"{self.max_bytes:,}", self.remote.url),
            )
        return evicted

    def _by_last_use(self) -> list[str]:
        here = self.local.keys()
        used = {key: self.path(key).stat().st_mtime for key in here}
        old = time.time() - self.idle_s
        return [key for key in sorted(used, key=used.__getitem__) if used[key] <= old]

    def held_bytes(self) -> int:
        """Bytes of artifacts, files and interrupted fetches here."""
        folders = ("blobs", "objects", "files", "partial")
        return disk.allocated_bytes(*(self.root / folder for folder in folders))
