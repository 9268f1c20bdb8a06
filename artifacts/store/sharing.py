"""How much the artifacts of a store have in common, and sharing for those that were written without."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import Manifest
from artifacts.store import tree
from artifacts.store.disk import ReportUnwritable
from artifacts.store.local import LocalStore
from artifacts.store.scratch import scratch

Progress = Callable[[int, int], None]
"""Told artifacts done and artifacts in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Bytes of a store's artifacts, by two ways to count."""

    artifacts: int
    listed_bytes: int
    """Of all files that manifests list: what the artifacts would take each by itself."""
    held_bytes: int
    """Of the same files with those that share their bytes counted once: what they take."""
    unused_bytes: int
    """Of contents that no artifact has any longer; gc takes them."""


def measure(store: LocalStore) -> Sharing:
    """Count the bytes of a store's artifacts; reads manifests, and of files only what `stat` says."""
    store, artifacts, listed_bytes = store.local, 0, 0
    size_of: dict[tuple[int, int], int] = {}
    for key, manifest in _manifests(store):
        artifacts += 1
        listed_bytes += manifest.size_bytes
        for name in manifest.files:
            path = store.path(key) / name
            if path.is_file():
                stat = path.stat()
                size_of[stat.st_dev, stat.st_ino] = stat.st_size
    blobs = (store.blobs.path(sha256).stat() for sha256 in store.blobs.digests())
    return Sharing(
        artifacts=artifacts,
        listed_bytes=listed_bytes,
        held_bytes=sum(size_of.values()),
        unused_bytes=sum(stat.st_size for stat in blobs if (stat.st_dev, stat.st_ino) not in size_of),
    )


def share(store: LocalStore, progress: Progress | None = None) -> list[Path]:
    """Let all artifacts share their contents; return files that are damaged, which are left as they are.

    For stores that were filled by versions without sharing. Files are read unless their digests are known.
    """
    store, damaged = store.local, list[Path]()
    keys = store.keys()
    for done, key in enumerate(keys, 1):
        with ReportUnwritable(store.root), store.lock(key):
            if store.has(key):
                damaged += _adopt(store, key)
        if progress is not None:
            progress(done, len(keys))
    return damaged


def _adopt(store: LocalStore, key: str) -> list[Path]:
    """Shares what is right of one artifact; returns the rest."""
    root, since_ns = store.path(key), time.time_ns()
    try:
        files = store.manifest(key).files
    except ArtifactCorrupt:
        return [root]
    damaged = tree.misshapen(root, files)
    damaged |= tree.differing(
        root, {name: files[name] for name in files if name not in damaged}, store.digests.digests
    )
    intact = {name: record for name, record in files.items() if name not in damaged}
    with scratch(store.root / "staging", "share") as directory:
        store.blobs.draw(root, intact, directory / "link")
        store.blobs.add(root, intact, directory / "link", since_ns)
    return [root / name for name in sorted(damaged)]


def _manifests(store: LocalStore) -> Iterator[tuple[str, Manifest]]:
    for key in store.keys():  # noqa: SIM118 a store is no dict
        try:
            yield key, store.manifest(key)
        except (ArtifactCorrupt, NotFound):
            continue
