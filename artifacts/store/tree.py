"""The files of an artifact on disk, and their comparison with its manifest."""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from artifacts import digest
from artifacts.manifest import MANIFEST, FileRecord, check_names

READ_ONLY = 0o444


def list_files(root: Path) -> dict[str, Path]:
    """Relative POSIX name -> path of every file below `root`, sorted; without directories."""
    files: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        # `os.walk` lists links to directories as directories, and does not enter them; here they count as
        # files, which `settle` refuses.
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*names, *links]:
            path = Path(folder, name)
            files[path.relative_to(root).as_posix()] = path
    return dict(sorted(files.items()))


def is_plain(path: Path) -> bool:
    """Whether the path is a regular file, not a link, pipe, socket or device."""
    return stat.S_ISREG(path.lstat().st_mode)


def settle(root: Path, digests: Mapping[str, str] = MappingProxyType({})) -> dict[str, FileRecord]:
    """Make every file of a finished draft read-only; return name -> size and digest.

    Files in `digests`, which were hashed while they were written, are not read again. Directories stay
    writable: removing a file needs write permission on its directory only, so an artifact can be removed as a
    whole, while no program overwrites one of its files by mistake.
    """
    files = list_files(root)
    check_names(files)
    for name, path in files.items():
        if not is_plain(path):
            raise ValueError(f"{name!r} is not a plain file; copy what it points to")
        path.chmod(READ_ONLY)
    hashed = digest.of_files(path for name, path in files.items() if name not in digests)
    return {
        name: FileRecord(size=path.stat().st_size, sha256=digests.get(name) or hashed[path])
        for name, path in files.items()
    }


def sync_all(root: Path) -> None:
    """Wait until everything below `root` is on disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder, name))
        # The directory's entries too: a file's bytes are lost if its name is.
        sync(Path(folder))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Digests = Callable[[Iterable[Path]], Mapping[Path, str]]


def misshapen(
    root: Path, files: Mapping[str, FileRecord], *, extra_names: Collection[str] = (MANIFEST,)
) -> dict[str, str]:
    """Name -> problem that is visible without reading; files in `extra_names` are ignored."""
    present = {name: path for name, path in list_files(root).items() if name not in extra_names}
    problems = dict.fromkeys(files.keys() - present.keys(), "missing")
    problems |= dict.fromkeys(present.keys() - files.keys(), "not in the manifest")
    for name in files.keys() & present.keys():
        size = present[name].lstat().st_size
        if not is_plain(present[name]):
            problems[name] = "not a plain file"
        elif size != files[name].size:
            problems[name] = f"{size:,} bytes; the manifest says {files[name].size:,}"
    return problems


def differing(root: Path, files: Mapping[str, FileRecord], digests: Digests) -> dict[str, str]:
    """Name -> problem of its bytes, for files that exist with the right size."""
    paths = {root / name: name for name in files}
    return {
        paths[path]: f"sha256 {sha256}; the manifest says {files[paths[path]].sha256}"
        for path, sha256 in digests(paths).items()
        if sha256 != files[paths[path]].sha256
    }


def problems(
    root: Path,
    files: Mapping[str, FileRecord],
    *,
    extra_names: Collection[str] = (MANIFEST,),
    digests: Digests = digest.of_files,
) -> list[str]:
    """Every difference between the files below `root` and their records; `digests` hashes files."""
    problem_of = misshapen(root, files, extra_names=extra_names)
    problem_of |= differing(root, {name: files[name] for name in files if name not in problem_of}, digests)
    return [f"{name}: {problem}" for name, problem in sorted(problem_of.items())]
