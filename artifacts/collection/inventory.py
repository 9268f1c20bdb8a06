"""What a store holds, as values: artifacts, their bytes with who shares them, and litter."""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.address import is_address, is_same, key_of
from artifacts.manifest import MANIFEST
from artifacts.registry.retention import Known
from artifacts.store import scratch

KEY = re.compile("[0-9a-f]{64}")

Progress = Callable[[int, int, str], None]
"""Told how many of how many things are done, and what things they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A committed artifact: one content of a key."""

    key: str
    """What the store calls it: its key, or its address where the key has another content under that name."""
    kind: str
    inputs: tuple[str, ...]
    """Keys of the artifacts that its step reads."""
    blobs: tuple[str, ...]
    """Ids of its contents, its manifest among them; those of several artifacts may be the same."""
    age_s: float
    """Since it was used last, as far as the store tells, by the store's clock."""
    params: str = ""
    """Digest of its step's parameters."""
    content: str | None = None
    """Digest that its manifest states; None where that cannot be read."""

    @property
    def base(self) -> str:
        """Its key alone."""
        return key_of(self.key)

    def may_be(self, version: Known) -> bool:
        """Whether it is what the version names, as far as both say which content that is."""
        return self.base == version.engine_key and is_same(version.manifest_digest, self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that are stored once."""

    size_bytes: int
    age_s: float = math.inf
    """Since they were stored; without an end where age does not matter."""
    strangers: int = 0
    """Names that these bytes have outside the artifacts and the store's own: they stay."""
    places: tuple[str, ...] = ()
    """Names to remove, in this order, beside those in the artifacts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Litter:
    """Something that only saves time or tells of the past."""

    kind: str
    """Folder that it is in."""
    place: str
    """Relative to the store."""
    size_bytes: int
    age_s: float
    """Since it was used; without an end if its owner is known to be dead."""
    owners: tuple[str, ...] = ()
    """Keys of artifacts that it belongs to; it stays while one of them does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything a store holds at one moment."""

    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    """Those that no artifact has, too."""
    litter: tuple[Litter, ...] = ()
    problems: tuple[str, ...] = ()
    """Manifests that cannot be read: what they share is not known, so that no blob may go."""


BESIDE = "."
"""How the names of directories begin that imports and rebuilds work in, beside the store's own folders."""

NEEDLESS = ("partial", "files")
"""Folders whose directories nobody needs once the artifact they are of is there in whole."""


def local(root: Path, now: datetime, progress: Progress) -> Inventory:
    """What the store in a directory holds; `now` is the time of its file system."""
    now_s = now.timestamp()
    artifacts: dict[str, Artifact] = {}
    stats: dict[str, os.stat_result] = {}
    names = Counter[str]()
    folders = sorted(root.glob("objects/??/*"))
    for number, folder in enumerate(folders, 1):
        progress(number, len(folders), "artifacts")
        if is_address(folder.name):
            inodes = [(_inode(stat), stat) for _, stat in _files(folder)]
            names.update(inode for inode, _ in inodes)
            stats |= inodes
            artifacts[folder.name] = _artifact(folder, tuple(dict(inodes)), now_s)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, stat in _files(root / "blobs"):
        places[_inode(stat)].append(path.relative_to(root).as_posix())
        stats[_inode(stat)] = stat
    blobs = {
        inode: Blob(
            size_bytes=stat.st_size,
            strangers=max(0, stat.st_nlink - names[inode] - len(places[inode])),
            places=tuple(places[inode]),
        )
        for inode, stat in stats.items()
    }
    return Inventory(artifacts=artifacts, blobs=blobs, litter=tuple(_litter(root, artifacts, now_s)))


def _artifact(folder: Path, blobs: tuple[str, ...], now_s: float) -> Artifact:
    step, kind, content = {}, "unreadable", None
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        kind, step, content = str(manifest["kind"]), dict(manifest["step"]), str(manifest["digest"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # by its name it is known whether it is needed; `verify` says what is wrong with it
    mtimes = [path.stat().st_mtime for path in (folder, folder / MANIFEST) if path.exists()]
    return Artifact(
        key=folder.name,
        kind=kind,
        inputs=inputs_of(step),
        blobs=blobs,
        age_s=max(0.0, now_s - max(mtimes, default=now_s)),
        params=params_of(step),
        content=content,
    )


def inputs_of(step: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of the artifacts that a step reads."""
    inputs = step.get("inputs")
    keys = inputs.values() if isinstance(inputs, dict) else ()
    return tuple(key for key in keys if isinstance(key, str) and KEY.fullmatch(key))


def params_of(step: Mapping[str, Any]) -> str:
    """Digest of a step's parameters, by which what its builds learned is stored."""
    params = step.get("params")
    try:
        return digest.of_json(params) if isinstance(params, dict) else ""
    except (ValueError, RecursionError):  # a manifest that nobody of us wrote
        return ""


AGEING = ("logs", "partial", "files", "quarantine", "tuning", "hub")
"""Folders of what only saves time or tells of the past, each for as long as somebody used it."""


def _litter(root: Path, artifacts: Mapping[str, Artifact], now_s: float) -> Iterator[Litter]:
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for artifact in artifacts.values():
        owners[artifact.params].append(artifact.base)
    bases = {artifact.base for artifact in artifacts.values()}
    for dead in (*scratch.litter(root / "staging"), *scratch.litter(root, BESIDE)):
        yield _one(root, dead, math.inf)
    for kind in AGEING:
        for path in sorted(root.glob(f"{kind}/*")):
            key = path.name.partition(".")[0]
            # a folder of what builds learned is named by their parameters, a log by the artifact
            owner_keys = owners[path.name] if kind == "tuning" else [key] if KEY.fullmatch(key) else []
            needless = kind in NEEDLESS and key in bases
            yield _one(root, path, now_s - _used(path), () if needless else tuple(owner_keys))
    for path in sorted(root.glob("leases/*#*")):  # half-written by a process that died
        yield _one(root, path, now_s - _used(path))


def _one(root: Path, path: Path, age_s: float, owners: tuple[str, ...] = ()) -> Litter:
    place = path.relative_to(root)
    size = sum(stat.st_size for _, stat in _files(path) if stat.st_nlink == 1)
    return Litter(kind=place.parts[0], place=place.as_posix(), size_bytes=size, age_s=age_s, owners=owners)


def _used(path: Path) -> float:
    """When a file, or one below a directory, was written or read last, as far as the file system tells."""
    times = [max(stat.st_mtime, stat.st_atime) for _, stat in _files(path)]
    try:
        return max([path.lstat().st_mtime, *times])
    except FileNotFoundError:
        return math.inf  # gone


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The file, or every file below the directory, with what `lstat` says; none that vanishes meanwhile."""
    paths = [path] if not path.is_dir() or path.is_symlink() else _below(path)
    for file in paths:
        try:
            yield file, file.lstat()
        except FileNotFoundError:
            continue


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)
        yield from (Path(parent, name) for name in folders if Path(parent, name).is_symlink())


def _inode(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"
