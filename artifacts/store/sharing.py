"""Measures how many bytes the artifacts of a store share, and lets unshared artifacts share theirs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import Manifest
from artifacts.store import tree
from artifacts.store.disk import ReportUnwritable
from artifacts.store.local import LocalStore
from artifacts.store.scratch import scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Bytes of a store's artifacts, with and without sharing."""

    artifacts: int
    listed_bytes: int
    """Of all files in manifests: the size without sharing."""
    held_bytes: int
    """Of the same files with shared bytes counted once: the size on disk."""
    unused_bytes: int
    """Of contents that no artifact uses; gc removes them."""


def measure(store: LocalStore) -> Sharing:
    """Count the bytes of a store's artifacts from manifests and `stat`, without reading files."""
    store, artifacts, listed_bytes = store.local, 0, 0
    size_of: dict[tuple[int, int], int] = {}
    for key, manifest in _manifests(store):
        artifacts += 1
        listed_bytes += manifest.size_bytes
        for name in manifest.files:
            path = store.path(key) / name
            if path.is_file():
                stat = path.stat()
                # By inode: hard links of one file count once.
                size_of[stat.st_dev, stat.st_ino] = stat.st_size
    blobs = (store.blobs.path(sha256).stat() for sha256 in store.blobs.digests())
    return Sharing(
        artifacts=artifacts,
        listed_bytes=listed_bytes,
        held_bytes=sum(size_of.values()),
        unused_bytes=sum(stat.st_size for stat in blobs if (stat.st_dev, stat.st_ino) not in size_of),
    )


def share(store: LocalStore, progress: Progress | None = None) -> list[Path]:
    """Hard-link equal files of all artifacts; return the damaged files, which are left unchanged.

    For stores filled by versions without sharing. Files are read unless their digests are cached.
    """
    store, damaged = store.local, list[Path]()
    keys = store.keys()
    for done, key in enumerate(keys, 1):
        # Under the lock, so that no build replaces the artifact meanwhile.
        with ReportUnwritable(store.root), store.lock(key):
            if store.has(key):
                damaged += _adopt(store, key)
        if progress is not None:
            progress(done, len(keys))
    return damaged


def _adopt(store: LocalStore, key: str) -> list[Path]:
    """Share the intact files of one artifact; return the damaged ones."""
    # Before the files are read: digests of files that change later are not cached.
    root, since_ns = store.path(key), time.time_ns()
    try:
        files = store.manifest(key).files
    except ArtifactCorrupt:
        return [root]
    damaged = tree.misshapen(root, files)
    # Only files of the right shape are read: one that is missing or a link is damaged already.
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
