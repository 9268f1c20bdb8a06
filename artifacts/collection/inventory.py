"""The inventory of a store as values: artifacts, contents and who shares them, and litter."""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.address import is_address, is_same, key_of
from artifacts.byte_progress import ItemProgress
from artifacts.manifest import MANIFEST
from artifacts.registry.retention import RetainedVersion
from artifacts.store import scratch

KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A committed artifact: one content of a key."""

    key: str
    """Its name in the store: its key, or its address where another content has the key as its name."""
    kind: str
    inputs: tuple[str, ...]
    """Keys of the artifacts that its step reads."""
    blobs: tuple[str, ...]
    """Ids of its contents, its manifest included; artifacts may share contents."""
    age_s: float
    """Since its last use by the store's clock, as far as the store records it."""
    params: str = ""
    """Digest of its step's parameters."""
    content: str | None = None
    """Digest in its manifest; None where the manifest cannot be read."""

    @property
    def base(self) -> str:
        """Its key alone."""
        return key_of(self.key)

    def may_be(self, version: RetainedVersion) -> bool:
        """Whether it may be the version's content; an unknown digest on either side matches."""
        return self.base == version.engine_key and is_same(version.manifest_digest, self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that are stored once."""

    size_bytes: int
    age_s: float = math.inf
    """Since they were stored; infinite where age does not matter."""
    strangers: int = 0
    """Hard links outside the store: with one, removing the store's names frees nothing."""
    places: tuple[str, ...] = ()
    """Names to remove, in this order, in addition to those in the artifacts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Litter:
    """A cache, log or leftover: removing it loses no artifact."""

    kind: str
    """Folder that it is in."""
    place: str
    """Relative to the store."""
    size_bytes: int
    age_s: float
    """Since its last use; infinite if its owner is known to be dead."""
    owners: tuple[str, ...] = ()
    """Keys of artifacts that it belongs to; it is kept while one of them is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The contents of a store at one moment."""

    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    """Including those that no artifact has."""
    litter: tuple[Litter, ...] = ()
    problems: tuple[str, ...] = ()
    """Manifests that cannot be read: the contents they list are unknown, so no content may be removed."""


BESIDE = "."
"""Prefix of the working directories of imports and rebuilds, at the top of the store."""

NEEDLESS = ("partial", "files")
"""Folders whose directories are useless once their artifact is committed."""


def local(root: Path, now: datetime, progress: ItemProgress) -> Inventory:
    """The inventory of a store in a directory; `now` is the time of its file system."""
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
            # One content per inode, however many artifacts link to it.
            stats |= inodes
            artifacts[folder.name] = _artifact(folder, tuple(dict(inodes)), now_s)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, stat in _files(root / "blobs"):
        places[_inode(stat)].append(path.relative_to(root).as_posix())
        stats[_inode(stat)] = stat
    blobs = {
        inode: Blob(
            size_bytes=stat.st_size,
            # Links that are neither in an artifact nor among the contents.
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
        pass  # its name is enough to decide whether to keep it; `verify` reports the damage
    mtimes = [path.stat().st_mtime for path in (folder, folder / MANIFEST) if path.exists()]
    return Artifact(
        key=folder.name,
        kind=kind,
        inputs=inputs_of(step),
        blobs=blobs,
        # Never negative: a time in the future, by a wrong clock, counts as just used.
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
    """Digest of a step's parameters, under which the store keeps what its builds learned."""
    params = step.get("params")
    try:
        return digest.of_json(params) if isinstance(params, dict) else ""
    except (ValueError, RecursionError):  # a manifest from another program
        return ""


AGEING = ("logs", "partial", "files", "quarantine", "tuning", "hub")
"""Folders of caches, logs and leftovers, whose entries expire by their last use."""


def _litter(root: Path, artifacts: Mapping[str, Artifact], now_s: float) -> Iterator[Litter]:
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for artifact in artifacts.values():
        owners[artifact.params].append(artifact.base)
    bases = {artifact.base for artifact in artifacts.values()}
    for dead in (*scratch.litter(root / "staging"), *scratch.litter(root, BESIDE)):
        yield _litter_entry(root, dead, math.inf)
    for kind in AGEING:
        for path in sorted(root.glob(f"{kind}/*")):
            key = path.name.partition(".")[0]
            # a folder of what builds learned is named by their parameters, a log by the artifact
            owner_keys = owners[path.name] if kind == "tuning" else [key] if KEY.fullmatch(key) else []
            needless = kind in NEEDLESS and key in bases
            yield _litter_entry(root, path, now_s - _last_used(path), () if needless else tuple(owner_keys))
    for path in sorted(root.glob("leases/*#*")):  # half-written by a process that died
        yield _litter_entry(root, path, now_s - _last_used(path))


def _litter_entry(root: Path, path: Path, age_s: float, owners: tuple[str, ...] = ()) -> Litter:
    place = path.relative_to(root)
    # Files with further links free nothing when this name is removed.
    size = sum(stat.st_size for _, stat in _files(path) if stat.st_nlink == 1)
    return Litter(kind=place.parts[0], place=place.as_posix(), size_bytes=size, age_s=age_s, owners=owners)


def _last_used(path: Path) -> float:
    """Latest write or read of a file, or of any below a directory, as far as the file system records it."""
    times = [max(stat.st_mtime, stat.st_atime) for _, stat in _files(path)]
    try:
        return max([path.lstat().st_mtime, *times])
    except FileNotFoundError:
        return math.inf  # removed meanwhile: infinitely young, so nothing is planned for it


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The file, or every file below the directory, with its `lstat`; files removed meanwhile are skipped."""
    paths = [path] if not path.is_dir() or path.is_symlink() else _files_below(path)
    for file in paths:
        try:
            yield file, file.lstat()
        except FileNotFoundError:
            continue


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)
        yield from (Path(parent, name) for name in folders if Path(parent, name).is_symlink())


def _inode(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"
