"""A remote store behind a directory of this machine: what is used is fetched once, what is made is pushed."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts.address import parse_address
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnknown
from artifacts.manifest import Manifest
from artifacts.store import lease, tree
from artifacts.store.cache import IDLE_S, Cache
from artifacts.store.draft import Draft, Progress, Source
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.store_identity import Identity


class CachedStore(LocalStore):
    """A remote store with the methods of a local one.

    What was committed is what is in the cache or in the remote store. A commit goes to both; a read fetches
    what the cache lacks, or has damaged. `local` and `remote` are the two by themselves.
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
        """The id of the remote store, under any URL and from any cache."""
        return self.remote.id

    def identity(self) -> Identity | None:
        """Id and layout of the remote store, None before the first write."""
        return self.remote.identity()

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

    def contents(self, key: str) -> list[str]:
        """Addresses of every content of a key, here or there, the one first that builds find."""
        return list(dict.fromkeys((*self.local.contents(key), *self.remote.contents(key))))

    def manifest(self, key: str) -> Manifest:
        """The artifact's manifest; NotFound where there is none, ArtifactCorrupt where no copy is right.

        Of a damaged copy here the remote store's is told: one content may have other caches there.
        """
        right = self.local.has(key) and (parse_address(key)[1] is None or self.local.intact(key))
        first, second = (self.local, self.remote) if right else (self.remote, self.local)
        try:
            return first.manifest(key)
        except (NotFound, ArtifactCorrupt):
            if not second.has(key):
                raise
        return second.manifest(key)

    def directory(self, key: str, progress: Progress | None = None) -> Path:
        """The artifact's directory, after what is missing or damaged of it was fetched and verified."""
        if not self.local.intact(key):
            self.cache.fetch(key, progress)
        self.touch([key])  # the cache evicts by last use
        return self.path(key)

    def file(self, key: str, name: str) -> Path:
        """One file of the artifact, fetched alone where the cache lacks it, and again where it is damaged."""
        return self.cache.file(key, name)

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
        self,
        key: str,
        *,
        kind: str,
        step: Mapping[str, Any],
        host: Mapping[str, Any],
        needed_bytes: int = 0,
        beside: bool = False,
    ) -> Iterator[Draft]:
        """Yield a draft; commit it here if the block succeeds, then push it; else discard it.

        A push that fails leaves the artifact here: `push` continues it.
        """
        with self.local.write(
            key, kind=kind, step=step, host=host, needed_bytes=needed_bytes, beside=beside
        ) as draft:
            yield draft
        for made in self.local.contents(key):
            self.push(made, draft.progress)
        self.cache.shrink()

    def push(self, key: str, progress: Progress | None = None) -> None:
        """Send the artifact to the remote store if it is here and not there."""
        if self.local.has(key):
            self.remote.push(self.local.path(key), self.local.manifest(key), progress)

    def intact(self, key: str) -> bool:
        """Whether the artifact can be had as it was committed: what is damaged here is fetched when read."""
        return self.local.intact(key) or self.remote.has(self.cache.content(key))

    def verify(self, key: str) -> list[str]:
        """Everything wrong with the artifact, by reading all of it.

        What is damaged in the cache is fetched when it is asked for: then it is the remote store that counts.
        """
        found = self.local.verify(key) if self.local.has(key) else []
        if self.local.has(key) and not (found and self.remote.has(key)):
            return found
        return self.remote.verify(key)

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
        """Keep artifacts from sweeps of the cache and of the remote store until the block ends.

        The lease is the one in the remote store: what the cache lost can be fetched again.
        """
        wanted = list(keys)
        with (
            self.local.lease(wanted, what, blobs, waiting=waiting),
            self.remote.lease(wanted, what, blobs, waiting=waiting) as held,
        ):
            yield held

    @contextmanager
    def reading(self, keys: Iterable[str], what: str) -> Iterator[None]:
        """Keep artifacts that are only read from sweeps, wherever this process may write leases."""
        wanted = list(keys)
        with (
            self.local.reading(wanted, what),
            self.remote.reading(wanted, what),
        ):
            yield
