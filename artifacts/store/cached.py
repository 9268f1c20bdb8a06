"""A remote store with a local cache: reads fetch an artifact once, commits push it."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts.address import parse_address
from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnknown
from artifacts.manifest import Manifest
from artifacts.store import lease, tree
from artifacts.store.cache import IDLE_S, Cache
from artifacts.store.draft import Draft, Source
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.store_identity import Identity


class CachedStore(LocalStore):
    """A remote store with a cache, under the interface of a local store.

    An artifact is committed if the cache or the remote store has it. A commit goes to both; a read fetches
    files that are missing or damaged in the cache. `local` is the cache alone, `remote` the remote store.
    """

    remote: RemoteStore

    def __init__(
        self, remote: RemoteStore, root: Path, *, max_bytes: int | None = None, idle_s: float = IDLE_S
    ) -> None:
        super().__init__(root)
        self.remote = remote
        self.local = LocalStore(root)
        self.cache = Cache(self.local, remote, max_bytes=max_bytes, idle_s=idle_s)

    @property
    def id(self) -> str:
        """Id of the remote store, the same under any URL and from any cache."""
        return self.remote.id

    def identity(self) -> Identity | None:
        """Id and layout of the remote store, None before the first write."""
        return self.remote.identity()

    def source(self) -> Source:
        """The source of intact bytes for a damaged cache: the remote store."""
        return self.remote

    @property
    def url(self) -> str:
        """URL that opens this store."""
        return self.remote.url

    @property
    def registry_url(self) -> str:
        """Raises StoreUnknown: a remote store contains no registry, so one must be named."""
        raise StoreUnknown(
            f"no registry is named for the store {self.remote.url}; give --registry or $ENGINERY_REGISTRY, "
            "e.g. postgresql://USER@HOST/DATABASE"
        )

    def has(self, key: str) -> bool:
        """Whether the artifact was committed, in the cache or in the remote store."""
        return self.local.has(key) or self.remote.has(key)

    def keys(self) -> list[str]:
        """Keys of everything committed, in the cache or in the remote store, sorted."""
        return sorted({*self.local.keys(), *self.remote.keys()})

    def contents(self, key: str) -> list[str]:
        """Addresses of every content of a key in cache and remote store; lookups by key find the first."""
        return list(dict.fromkeys((*self.local.contents(key), *self.remote.contents(key))))

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where no copy is intact.

        For a damaged copy in the cache it is the remote store's manifest, whose caches may differ.
        """
        # An address names one content, so the cache's copy counts only if it is that content, intact.
        right = self.local.has(key) and (parse_address(key)[1] is None or self.local.intact(key))
        first, second = (self.local, self.remote) if right else (self.remote, self.local)
        try:
            return first.manifest(key)
        except (NotFound, ArtifactCorrupt):
            if not second.has(key):
                raise
        return second.manifest(key)

    def directory(self, key: str, progress: Progress | None = None) -> Path:
        """The artifact's directory, after its missing and damaged files were fetched and verified."""
        if not self.local.intact(key):
            self.cache.fetch(key, progress)
        self.touch([key])  # a use: eviction goes by the directory's time
        return self.path(key)

    def file(self, key: str, name: str) -> Path:
        """Path of one file of the artifact; fetched alone if the cache lacks it, again if it is damaged."""
        return self.cache.file(key, name)

    def bring(self, manifest: Manifest, directory: Path, progress: Progress | None = None) -> None:
        """Make the files below `directory` writable copies of an artifact's files; remove all others.

        Files that are intact there or in the cache are not fetched.
        """
        # An earlier attempt may have been of other files; they would become part of the result.
        for name, path in tree.list_files(directory).items():
            if name not in manifest.files:
                path.unlink()
        present = self.local.blobs.sound(manifest.files.values())
        for name, file in manifest.files.items():
            target = directory / name
            if file.sha256 in present and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                # A copy, not a link: the caller may write to it, and a link would change the cache.
                shutil.copyfile(self.local.blobs.path(file.sha256), target)
        self.remote.fetch_files(manifest.files, directory, progress)  # skips files that are already intact

    @contextmanager
    def write(
        self,
        key: str,
        *,
        kind: str,
        step: Mapping[str, Any],
        host: Mapping[str, Any],
        needed_bytes: int = 0,
        beside: bool = False,
    ) -> Iterator[Draft]:
        """Yield a draft; if the block succeeds, commit it to the cache and push it; else discard it.

        After a failed push the artifact stays in the cache, and `push` resumes it.
        """
        with self.local.write(
            key, kind=kind, step=step, host=host, needed_bytes=needed_bytes, beside=beside
        ) as draft:
            yield draft
        # All contents, not only this draft's: an earlier push of another one may have failed.
        for address in self.local.contents(key):
            self.push(address, draft.progress)
        self.cache.shrink()

    def push(self, key: str, progress: Progress | None = None) -> None:
        """Send the artifact from the cache to the remote store unless that has it."""
        if self.local.has(key):
            self.remote.push(self.local.path(key), self.local.manifest(key), progress)

    def intact(self, key: str) -> bool:
        """Whether the artifact can be read as committed; damaged cached files are fetched on reading."""
        # The remote copy must be of the same content as the cache's, not just of the same key.
        return self.local.intact(key) or self.remote.has(self.cache.content(key))

    def verify(self, key: str) -> list[str]:
        """Every problem of the artifact; reads every byte.

        If the cache's copy is damaged and the remote store has the artifact, the remote copy counts, since a
        read fetches it.
        """
        problems = self.local.verify(key) if self.local.has(key) else []
        if self.local.has(key) and not (problems and self.remote.has(key)):
            return problems
        return self.remote.verify(key)

    def prepare(self) -> None:
        """Write to cache and remote store to prove that they are writable; otherwise a StoreUnusable."""
        self.local.prepare()
        self.remote.prepare()

    @contextmanager
    def lease(
        self,
        keys: Iterable[str],
        purpose: str,
        blobs: Iterable[str] = (),
        *,
        waiting: lease.Waiting | None = None,
    ) -> Iterator[lease.Lease]:
        """Protect artifacts from sweeps of the cache and of the remote store until the block ends.

        Yields the remote store's lease: an artifact lost from the cache can be fetched again.
        """
        key_list = list(keys)
        with (
            self.local.lease(key_list, purpose, blobs, waiting=waiting),
            self.remote.lease(key_list, purpose, blobs, waiting=waiting) as lease_,
        ):
            yield lease_

    @contextmanager
    def reading(self, keys: Iterable[str], purpose: str) -> Iterator[None]:
        """Protect artifacts that are only read from sweeps, wherever this process may write leases."""
        key_list = list(keys)
        with (
            self.local.reading(key_list, purpose),
            self.remote.reading(key_list, purpose),
        ):
            yield
