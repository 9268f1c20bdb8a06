"""Digests of values, files and trees, and a cache of the digests of unchanged files."""

import errno
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from artifacts.errors import FileChanged

log = logging.getLogger(__name__)

RACY_NS = 2_000_000_000
"""A file younger than this when it was read may change again without its timestamps showing it: the coarsest
timestamps in use (FAT) are 2 s apart."""

PIECE_BYTES = 1 << 20
"""Bytes read at once: enough that reading costs no more than hashing."""

BUSY_S = 30.0
"""How long one process waits for another that is writing the cache."""


def of_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order; NaN and keys other than strings are a ValueError."""
    _refuse_other_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_other_keys(value: Any) -> None:
    # json.dumps writes the keys 1 and "1" as the same text: two different values would share a digest.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} is a {type(key).__name__}; JSON objects have string keys")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)


def of_file(path: str | os.PathLike[str], on_bytes: Callable[[int], None] | None = None) -> str:
    """Digest of a file's bytes; `on_bytes` is told the number of bytes of every piece."""
    # One buffer for the whole file, and no second one in Python's own reader.
    hasher, piece = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
    with Path(path).open("rb", buffering=0) as file:
        while num_bytes := file.readinto(piece):
            hasher.update(piece[:num_bytes])
            if on_bytes is not None:
                on_bytes(num_bytes)
    return hasher.hexdigest()


def of_tree(files: Mapping[str, str]) -> str:
    """Digest of a directory given as relative name -> digest of the file; times and modes do not count."""
    return of_json(dict(files))


def of_files(paths: Iterable[Path]) -> dict[Path, str]:
    """Digests of several files, hashed in parallel; a file that changes meanwhile is a FileChanged."""
    ordered = list(paths)
    with ThreadPoolExecutor(max(1, min(len(ordered), os.cpu_count() or 1, 8))) as pool:
        try:
            return dict(zip(ordered, pool.map(of_still_file, ordered), strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C does not wait for the whole queue


def of_still_file(path: Path) -> str:
    """Digest of a file; FileChanged if it is written while it is read.

    Adding or removing a hard link changes a file's ctime and is no write.
    """
    before = path.stat()
    sha256 = of_file(path)
    after = path.stat()
    # Only a file with one link all the time has a ctime that no other process may move.
    linked = max(before.st_nlink, after.st_nlink) > 1
    if _written(before) != _written(after) or (not linked and before.st_ctime_ns != after.st_ctime_ns):
        raise FileChanged(f"{path} changed while it was being read; run again when nothing writes it")
    return sha256


def signature(path: Path) -> str:
    """Text of a file's `stat` that any later write changes, except within the granularity of timestamps."""
    return _signature(path.stat())


def _stats(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """`stat` of each existing file; another process may remove some of them meanwhile."""
    stats = {}
    for path in paths:
        with suppress(FileNotFoundError):
            stats[path] = path.stat()
    return stats


def _signature(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{_inode(stat)}"


def _written(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}:{_inode(stat)}"


def _inode(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


class FileDigests:
    """A cache of file digests in a small SQLite file; safe for any number of processes at once.

    An entry belongs to an inode, so that all hard links of a file share it, and is valid while size and times
    are unchanged. Where the cache cannot be used, files are hashed and a warning is logged.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._warnings: set[str] = set()

    def digest(self, path: Path) -> str:
        """Digest of one file, from the cache where the file is unchanged."""
        return self.digests([path])[path]

    def digests(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Digests of several files; those not in the cache are hashed in parallel."""
        stats = {path: path.stat() for path in paths}
        cached = self._known(stats)
        old_ns = time.time_ns() - RACY_NS
        fresh = of_files(path for path in stats if path not in cached)
        # Every write changes ctime, which programs cannot set, unlike mtime. A file with a recent ctime may
        # still change within the granularity of timestamps, so its digest is not stored.
        settled = [path for path in fresh if stats[path].st_ctime_ns < old_ns]
        self._remember((stats[path], fresh[path]) for path in settled)
        return {path: cached.get(path) or fresh[path] for path in stats}

    def known(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Valid cached digests of the paths; reads no file."""
        return self._known(_stats(paths))

    def vouch(self, digests: Mapping[Path, str], since_ns: int) -> None:
        """Cache digests of files that were read after `since_ns` and not written since.

        For a store's own files: every hard link changes their ctime, so a write is detected by mtime alone.
        Files whose mtime is too recent for that, and missing files, are left out.
        """
        rows = []
        for path, sha256 in digests.items():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            # A younger file may have been written after it was read, with the same time stamp.
            if stat.st_mtime_ns < since_ns - RACY_NS:
                rows.append((stat, sha256))
        self._remember(rows)

    def forget(self, paths: Iterable[Path]) -> None:
        """Drop the cached digests of files that turned out to have other bytes."""
        rows = [(_inode(stat),) for stat in _stats(paths).values()]
        if rows and self.cache.exists():
            with self._warned(), closing(self._connect()) as db, db:
                db.executemany("DELETE FROM inode WHERE inode = ?", rows)

    def clear(self) -> None:
        """Empty the cache without needing disk space; does nothing while other processes hold its lock.

        The file is truncated, not removed: a process that waits for its lock continues to use it.
        """
        if self.cache.exists():
            with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self.cache, timeout=BUSY_S)) as db:
                db.execute("BEGIN EXCLUSIVE")
                # By path: closing any descriptor of the file would release this process's POSIX locks on it,
                # SQLite's among them.
                os.truncate(self.cache, 0)

    def _known(self, stats: Mapping[Path, os.stat_result]) -> dict[Path, str]:
        digests: dict[Path, str] = {}
        if self.cache.exists():
            with self._warned(), closing(self._connect()) as db:
                query = "SELECT sha256 FROM inode WHERE inode = ? AND signature = ?"
                for path, stat in stats.items():
                    for (sha256,) in db.execute(query, (_inode(stat), _signature(stat))):
                        digests[path] = sha256
        return digests

    def _remember(self, digests: Iterable[tuple[os.stat_result, str]]) -> None:
        rows = [(_inode(stat), _signature(stat), sha256) for stat, sha256 in digests]
        if not rows:
            return
        with self._warned():
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db, db:
                db.executemany("INSERT OR REPLACE INTO inode VALUES (?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.cache, timeout=BUSY_S)
        try:
            db.execute(
                "CREATE TABLE IF NOT EXISTS inode (inode TEXT PRIMARY KEY, signature TEXT, sha256 TEXT)"
            )
        except sqlite3.Error:
            db.close()
            raise
        return db

    @contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            warning = (
                f"digest cache {self.cache} cannot be used, so files are hashed again: {exc}{_remedy(exc)}"
            )
            if warning not in self._warnings:  # log each reason once
                self._warnings.add(warning)
                log.warning("%s", warning)


def _remedy(exc: BaseException) -> str:
    """What to do about a cache that cannot be used; only a corrupt one should be deleted."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "; delete it"
    if code == sqlite3.SQLITE_FULL or getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "; free space there"
    return "; nothing else depends on it"
