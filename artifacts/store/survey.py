"""Everything in a store read again: which bytes are not what they were, and whose they are."""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from artifacts import digest
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, FileRecord
from artifacts.store import tree, tuning_cache
from artifacts.store.local import LocalStore
from artifacts.store.store_identity import STORE

READERS = 8
"""Files that are read at once, at most: enough for the fastest disks."""

Progress = Callable[[int, int], None]
"""Told bytes read and bytes in all."""

FOREIGN, NO_FILE = "not in the manifest", "not a plain file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One damaged file under all its names: the artifacts that share it, and the store's own."""

    paths: tuple[str, ...]
    """Relative to the store, sorted: blobs, then objects."""
    what: str
    record: FileRecord | None
    """What should be there; None of manifests, of files that nobody listed, and of contents nobody uses."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Artifacts that have it."""
        parts = (path.split("/") for path in self.paths)
        return tuple(dict.fromkeys(part[2] for part in parts if part[0] == "objects"))

    def __str__(self) -> str:
        also = len(self.paths) - 1
        return f"{self.paths[-1]}{f' (and {also} other names)' if also else ''}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was read, and what of it is damaged."""

    damages: tuple[Damage, ...]
    artifacts: int
    files: int
    """Files read; one with several names counts once."""
    size_bytes: int


def survey(store: LocalStore, keys: Iterable[str] | None = None, progress: Progress | None = None) -> Survey:
    """Read all files of the artifacts, or of the whole store, each once; the disk's speed is the limit.

    What is found right is remembered, what is found wrong is forgotten, so that no new artifact shares it.
    """
    store = store.local
    scan = _Scan(store)
    wanted = store.keys() if keys is None else list(keys)
    for key in wanted:
        scan.artifact(key)
    if keys is None:
        scan.whole()
    before = time.time_ns()
    seen = _read({inode: names[0] for inode, names in scan.names.items()}, scan.size_bytes, progress)
    damages = [
        *scan.damages,
        *(damage for inode, found in seen.items() for damage in scan.judge(inode, found)),
    ]
    bad = {path for damage in damages for path in damage.paths}
    store.digests.forget(store.root / path for path in sorted(bad))
    right = {scan.names[inode][0]: found for inode, found in seen.items() if isinstance(found, str)}
    store.digests.vouch({path: found for path, found in right.items() if scan.short(path) not in bad}, before)
    return Survey(
        damages=tuple(sorted(damages, key=lambda damage: damage.paths[-1])),
        artifacts=len(wanted),
        files=len(scan.names),
        size_bytes=scan.size_bytes,
    )


Inode = tuple[int, int]


@dataclass(slots=True)
class _Scan:
    store: LocalStore
    names: dict[Inode, list[Path]] = field(default_factory=dict)
    """Plain files, under all their names."""
    wanted: dict[Path, str] = field(default_factory=dict)
    """Digest that each is to have."""
    records: dict[str, FileRecord] = field(default_factory=dict)
    """Every content that a manifest lists."""
    damages: list[Damage] = field(default_factory=list)
    """What shows without reading."""
    size_bytes: int = 0

    def artifact(self, key: str) -> None:
        """Takes in the files of an artifact, unless it was removed meanwhile."""
        root = self.store.path(key)
        try:
            files = self.store.manifest(key).files
        except NotFound:
            return
        except ArtifactCorrupt as exc:
            self._note(root / MANIFEST, str(exc).partition(f"{MANIFEST}: ")[2])
            return
        found = {name: path for name, path in tree.list_files(root).items() if name != MANIFEST}
        odd = {name: "missing" for name in files if name not in found}
        odd |= {name: FOREIGN for name in found if name not in files}
        for name, record in files.items():
            self.records[record.sha256] = record
            if name in found and not self._take(found[name], record.sha256):
                odd[name] = NO_FILE
        if self.store.has(key):  # not removed meanwhile
            for name, what in odd.items():
                self._note(root / name, what, files.get(name))

    def whole(self) -> None:
        """Takes in what belongs to no artifact: contents, what builds learned, and the store's own file."""
        try:
            self.store.identity()
        except ArtifactCorrupt as exc:
            self._note(self.store.root / STORE, str(exc).partition(f"{STORE}: ")[2])
        for sha256 in self.store.blobs.digests():
            path = self.store.blobs.path(sha256)
            if not self._take(path, sha256):
                self._note(path, NO_FILE, self.records.get(sha256))
        for place in tuning_cache.directories(self.store.root):
            contents, problems = tuning_cache.listed(place)
            for path, what in problems.items():
                self._note(path, what)
            for path, sha256 in contents.items():
                if not self._take(path, sha256):
                    self._note(path, NO_FILE)

    def judge(self, inode: Inode, found: str | OSError) -> list[Damage]:
        """What is wrong with a file that was read: one damage for every content it should have been."""
        wrong: dict[str, list[str]] = {}
        for path in self.names[inode]:
            if found != self.wanted[path] and not isinstance(found, FileNotFoundError):  # removed meanwhile
                wrong.setdefault(self.wanted[path], []).append(self.short(path))
        return [
            Damage(paths=tuple(sorted(paths)), what=_said(found, sha256), record=self.records.get(sha256))
            for sha256, paths in wrong.items()
        ]

    def short(self, path: Path) -> str:
        """The path relative to the store."""
        return path.relative_to(self.store.root).as_posix()

    def _take(self, path: Path, sha256: str) -> bool:
        """Takes in one name of a file; False where it is no plain file."""
        try:
            found = path.lstat()
        except FileNotFoundError:  # removed meanwhile
            return True
        if not stat.S_ISREG(found.st_mode):
            return False
        inode = (found.st_dev, found.st_ino)
        if inode not in self.names:
            self.size_bytes += found.st_size
        self.names.setdefault(inode, []).append(path)
        self.wanted[path] = sha256
        return True

    def _note(self, path: Path, what: str, record: FileRecord | None = None) -> None:
        self.damages.append(Damage(paths=(self.short(path),), what=what, record=record))


def _said(found: str | OSError, wanted: str) -> str:
    if isinstance(found, OSError):
        return f"cannot be read: {os.strerror(found.errno or 0).lower()}"
    return f"sha256 {found}; it should be {wanted}"


def _read(paths: Mapping[Inode, Path], total: int, progress: Progress | None) -> dict[Inode, str | OSError]:
    """Digest of every file, or why it cannot be read; an unreadable sector is a result, not an end."""
    lock, done = threading.Lock(), 0

    def counted(num_bytes: int) -> None:
        nonlocal done
        with lock:
            done += num_bytes
            if progress is not None:
                progress(done, total)

    def read(path: Path) -> str | OSError:
        try:
            return digest.of_file(path, counted)
        except OSError as exc:
            return exc

    with ThreadPoolExecutor(max(1, min(len(paths), os.cpu_count() or 1, READERS))) as pool:
        try:
            return dict(zip(paths, pool.map(read, paths.values()), strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
