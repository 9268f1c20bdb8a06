"""The files of one artifact on disk, compared with what its manifest says of them."""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from artifacts import digest
from artifacts.manifest import MANIFEST, FileRecord, check_names

READ_ONLY = 0o444


def list_files(root: Path) -> dict[str, Path]:
    """Relative POSIX name -> path of every file below `root`, sorted; directories themselves do not count."""
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*names, *links]:
            path = Path(folder, name)
            found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items()))


def is_plain(path: Path) -> bool:
    """Whether it is a file with bytes of its own: no link, pipe, socket or device."""
    return stat.S_ISREG(path.lstat().st_mode)


def settle(root: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, FileRecord]:
    """Make every file of a finished draft read-only, and return name -> size and digest.

    Files whose digests are `known`, since they were computed while the bytes came in, are not read again.
    Directories stay writable by their owner: removing a file needs write permission on its directory only, so
    that an artifact can be removed as a whole while no program overwrites one of its files by mistake.
    """
    files = list_files(root)
    check_names(files)
    for name, path in files.items():
        if not is_plain(path):
            raise ValueError(f"{name!r} is not a plain file; copy what it points to")
        path.chmod(READ_ONLY)
    read = digest.of_files(path for name, path in files.items() if name not in known)
    return {
        name: FileRecord(size=path.stat().st_size, sha256=known.get(name) or read[path])
        for name, path in files.items()
    }


def sync_all(root: Path) -> None:
    """Wait until everything below `root` is on disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


Digests = Callable[[Iterable[Path]], Mapping[Path, str]]


def misshapen(
    root: Path, files: Mapping[str, FileRecord], *, beside: Collection[str] = (MANIFEST,)
) -> dict[str, str]:
    """Name -> what is wrong as far as it shows without reading; files named in `beside` do not count."""
    found = {name: path for name, path in list_files(root).items() if name not in beside}
    problems = dict.fromkeys(files.keys() - found.keys(), "missing")
    problems |= dict.fromkeys(found.keys() - files.keys(), "not in the manifest")
    for name in files.keys() & found.keys():
        size = found[name].lstat().st_size
        if not is_plain(found[name]):
            problems[name] = "not a plain file"
        elif size != files[name].size:
            problems[name] = f"{size:,} bytes; the manifest says {files[name].size:,}"
    return problems


def differing(root: Path, files: Mapping[str, FileRecord], digests: Digests) -> dict[str, str]:
    """Name -> what is wrong with its bytes, for files that are there in their right size."""
    paths = {root / name: name for name in files}
    return {
        paths[path]: f"sha256 {found}; the manifest says {files[paths[path]].sha256}"
        for path, found in digests(paths).items()
        if found != files[paths[path]].sha256
    }


def problems(
    root: Path,
    files: Mapping[str, FileRecord],
    *,
    beside: Collection[str] = (MANIFEST,),
    digests: Digests = digest.of_files,
) -> list[str]:
    """Every difference between the files below `root` and their records; `digests` reads or remembers."""
    found = misshapen(root, files, beside=beside)
    found |= differing(root, {name: files[name] for name in files if name not in found}, digests)
    return [f"{name}: {what}" for name, what in sorted(found.items())]
