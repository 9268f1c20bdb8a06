"""Surveys a store: reads every file and finds damaged ones with the artifacts that have them."""

import os
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from artifacts import digest
from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, FileRecord
from artifacts.store import tree, tuning_cache
from artifacts.store.local import LocalStore
from artifacts.store.store_identity import STORE

READERS = 8
"""Most files that are read at once: enough for the fastest disks."""


FOREIGN, NO_FILE = "not in the manifest", "not a plain file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file under all of its names, in artifacts and among the contents."""

    paths: tuple[str, ...]
    """Relative to the store, sorted: blobs, then objects."""
    what: str
    record: FileRecord | None
    """The expected file; None for manifests, unlisted files and unused contents."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Artifacts that have it."""
        parts = (path.split("/") for path in self.paths)
        return tuple(dict.fromkeys(part[2] for part in parts if part[0] == "objects"))

    def __str__(self) -> str:
        others = len(self.paths) - 1
        return f"{self.paths[-1]}{f' (and {others} other names)' if others else ''}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The result of a survey: files read, and damages."""

    damages: tuple[Damage, ...]
    artifacts: int
    files: int
    """Files read; one with several names counts once."""
    size_bytes: int


def survey(store: LocalStore, keys: Iterable[str] | None = None, progress: Progress | None = None) -> Survey:
    """Read all files of the artifacts, or of the whole store, each once, as fast as the disk allows.

    Digests of intact files are cached; those of damaged files are dropped, so that no new artifact shares
    them.
    """
    store = store.local
    scan = _Scan(store)
    key_list = store.keys() if keys is None else list(keys)
    for key in key_list:
        scan.artifact(key)
    if keys is None:
        scan.whole()
    # Before the reading: a file that is written later than this is not vouched for.
    since_ns = time.time_ns()
    # One name per inode: all its names have the same bytes, so they are read once.
    digest_of = _read({inode: names[0] for inode, names in scan.names.items()}, scan.size_bytes, progress)
    damages = [
        *scan.damages,
        *(damage for inode, result in digest_of.items() for damage in scan.judge(inode, result)),
    ]
    bad = {path for damage in damages for path in damage.paths}
    # A cached digest may say that a damaged file is intact, e.g. after a disk error that no write caused.
    store.digests.forget(store.root / path for path in sorted(bad))
    sound = {scan.names[inode][0]: result for inode, result in digest_of.items() if isinstance(result, str)}
    store.digests.vouch(
        {path: result for path, result in sound.items() if scan.short(path) not in bad}, since_ns
    )
    return Survey(
        damages=tuple(sorted(damages, key=lambda damage: damage.paths[-1])),
        artifacts=len(key_list),
        files=len(scan.names),
        size_bytes=scan.size_bytes,
    )


Inode = tuple[int, int]


@dataclass(slots=True)
class _Scan:
    store: LocalStore
    names: dict[Inode, list[Path]] = field(default_factory=dict)
    """Inode of a plain file -> all of its names."""
    expected: dict[Path, str] = field(default_factory=dict)
    """Name -> expected digest."""
    records: dict[str, FileRecord] = field(default_factory=dict)
    """Every content that a manifest lists."""
    damages: list[Damage] = field(default_factory=list)
    """Damages that are visible without reading."""
    size_bytes: int = 0

    def artifact(self, key: str) -> None:
        """Add the files of an artifact, unless it was removed meanwhile."""
        root = self.store.path(key)
        try:
            files = self.store.manifest(key).files
        except NotFound:
            return
        except ArtifactCorrupt as exc:
            self._note(root / MANIFEST, str(exc).partition(f"{MANIFEST}: ")[2])
            return
        present = {name: path for name, path in tree.list_files(root).items() if name != MANIFEST}
        problems = {name: "missing" for name in files if name not in present}
        problems |= {name: FOREIGN for name in present if name not in files}
        for name, record in files.items():
            # Kept for the blobs: their names are digests only, and a damage needs the whole record.
            self.records[record.sha256] = record
            if name in present and not self._take(present[name], record.sha256):
                problems[name] = NO_FILE
        if self.store.has(key):  # not removed meanwhile
            for name, problem in problems.items():
                self._note(root / name, problem, files.get(name))

    def whole(self) -> None:
        """Add files that belong to no artifact: contents, tuning results and the store's own file."""
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
            for path, problem in problems.items():
                self._note(path, problem)
            for path, sha256 in contents.items():
                if not self._take(path, sha256):
                    self._note(path, NO_FILE)

    def judge(self, inode: Inode, result: str | OSError) -> list[Damage]:
        """The damages of a file that was read, one per content that it should have."""
        paths_of: dict[str, list[str]] = {}
        for path in self.names[inode]:
            removed = isinstance(result, FileNotFoundError)  # since the listing, which is no damage
            if result != self.expected[path] and not removed:
                paths_of.setdefault(self.expected[path], []).append(self.short(path))
        return [
            Damage(
                paths=tuple(sorted(paths)),
                what=_damage_message(result, sha256),
                record=self.records.get(sha256),
            )
            for sha256, paths in paths_of.items()
        ]

    def short(self, path: Path) -> str:
        """The path relative to the store."""
        return path.relative_to(self.store.root).as_posix()

    def _take(self, path: Path, sha256: str) -> bool:
        """Add one name of a file; False where it is not a plain file."""
        try:
            stat_ = path.lstat()
        except FileNotFoundError:  # removed meanwhile
            return True
        if not stat.S_ISREG(stat_.st_mode):
            return False
        inode = (stat_.st_dev, stat_.st_ino)
        if inode not in self.names:
            self.size_bytes += stat_.st_size
        self.names.setdefault(inode, []).append(path)
        self.expected[path] = sha256
        return True

    def _note(self, path: Path, problem: str, record: FileRecord | None = None) -> None:
        self.damages.append(Damage(paths=(self.short(path),), what=problem, record=record))


def _damage_message(result: str | OSError, sha256: str) -> str:
    if isinstance(result, OSError):
        return f"cannot be read: {os.strerror(result.errno or 0).lower()}"
    return f"sha256 {result}; it should be {sha256}"


def _read(paths: Mapping[Inode, Path], total: int, progress: Progress | None) -> dict[Inode, str | OSError]:
    """Digest of every file, or the error of reading it: an unreadable sector does not end the survey."""
    lock, done = threading.Lock(), 0

    def counted(num_bytes: int) -> None:
        nonlocal done
        # Several threads count at once: without the lock, the sum could lose some of them.
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
