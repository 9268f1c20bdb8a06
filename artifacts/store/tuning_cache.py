"""Tuning results of builds, kept for later builds with the same settings: files under a sealed index.

The store has a directory per settings, named by their digest. Contents are named by their own digests; the
index, which maps names to them, is replaced atomically, so that a killed builder leaves either the old or the
new index. Files that do not match the index are never offered to a build.
"""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, field_validator

from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import FileName, FileRecord, Frozen, Sha256, check_names, seal, unseal
from artifacts.store import tree
from artifacts.store.lock import alone
from artifacts.store.scratch import scratch

FOLDER = "tuning"
INDEX = "index.json"
INDEX_BYTES = 16 << 20
"""Largest index that is read: that of 60,000 files is smaller."""
DIGEST = re.compile("[0-9a-f]{64}")

UNSEALED = "files of enginery 0.1 have no seal"
UNLISTED = "is not in the index"
NO_FILE, NO_DIRECTORY = "not a plain file", "not a directory"


class Index(Frozen):
    """The index of a directory."""

    version: Literal[1] = 1
    """Version of this layout."""
    settings: Sha256
    """Name of the directory: an index copied from another directory is invalid."""
    files: dict[FileName, FileRecord]
    """Name -> size and digest."""

    @field_validator("files")
    @classmethod
    def _can_stand_together(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        check_names(files)
        return files


def directories(root: Path) -> list[Path]:
    """The directories of a store, sorted."""
    return sorted(path for path in (root / FOLDER).glob("*") if DIGEST.fullmatch(path.name))


def keep(place: Path, learned: Path, files: Mapping[str, FileRecord], staging: Path) -> None:
    """Add files below `learned` to a directory, replacing those with the same names; OSError on failure.

    Files that differ from their records are left out.
    """
    if _directory_problem(place):
        place.unlink()
    place.mkdir(parents=True, exist_ok=True)
    with scratch(staging, FOLDER) as directory, alone(place):
        index = _readable(place)
        # An empty index first: contents beside a missing index are then known to be damaged, not new.
        if index is None:
            _write(place, {}, directory)
        entries = dict(index or {})
        for name, record in files.items():
            content = place / record.sha256
            # Checked without reading: `offer` hashes the content before a build uses it.
            if entries.get(name) == record and not _file_problem(content, record):
                continue
            if not _copy_verified(learned / name, record, directory / record.sha256):
                # Contents before the index that names them: a killed builder leaves only contents that nobody
                # uses.
                _put(directory / record.sha256, content)
                entries[name] = record
        _write(place, entries, directory)
        _tidy(place, entries)


def offer(place: Path, target: Path, staging: Path) -> list[str]:
    """Copy files that match the index to `target`; remove the others, and return their problems.

    The copies in `target` are what was verified, so that later changes in the store do not matter.
    """
    target.mkdir(parents=True, exist_ok=True)
    if problem := _directory_problem(place):
        place.unlink()
        return [problem]
    if not place.exists():
        return []
    with scratch(staging, FOLDER) as directory, alone(place):
        problems, sound = _offered(place, target)
        foreign = _foreign(place)
        if foreign and not _exists(place / INDEX):
            problems.append(UNSEALED)
        else:
            problems += [f"{path.name}: {UNLISTED}" for path in foreign]
        if problems:
            _write(place, sound, directory)
        # After the index, so that the files of 0.1 go only once there is a sealed one.
        for path in foreign:
            _remove(path)
        _tidy(place, sound)
    return problems


def mend(place: Path, staging: Path) -> list[str]:
    """Remove files that do not match the index; return their problems. A later build creates them again."""
    with scratch(staging, FOLDER) as directory:
        return offer(place, directory / "right", staging)


def listed(place: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Contents with their expected digests, and problems that are visible without reading.

    Files of 0.1 are in neither: they have no digests, and no build reads them any more.
    """
    while True:
        text = _text(place)
        contents, problems = _listed(place)
        if not problems or _text(place) == text:  # otherwise a builder replaced the index meanwhile
            return contents, problems


def _listed(place: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    if problem := _directory_problem(place):
        return {}, {place: problem}
    contents, sealed = _contents(place), _exists(place / INDEX)
    problems = dict.fromkeys(_foreign(place) if sealed else (), UNLISTED)
    try:
        index = _index(place)
    except ArtifactCorrupt as exc:
        return {path: path.name for path in contents}, {**problems, place / INDEX: str(exc)}
    if index is None and contents:
        problems[place / INDEX] = "missing"
    for name, record in (index or {}).items():
        if problem := _file_problem(place / record.sha256, record):
            problems[place / record.sha256] = f"{name}: {problem}"
    return {path: path.name for path in contents if path not in problems}, problems


def _offered(place: Path, target: Path) -> tuple[list[str], dict[str, FileRecord]]:
    """The problems of entries, and the intact entries, which are copied to `target`."""
    try:
        index = _index(place)
    except ArtifactCorrupt as exc:
        return [f"{INDEX}: {exc}"], {}
    if index is None:
        return [f"{INDEX}: missing"] if _contents(place) else [], {}
    problem_of = {
        name: _copy_verified(place / entry.sha256, entry, target / name) for name, entry in index.items()
    }
    problems = [f"{name}: {problem}" for name, problem in problem_of.items() if problem]
    return problems, {name: record for name, record in index.items() if not problem_of[name]}


def _index(place: Path) -> dict[str, FileRecord] | None:
    """Name -> record; None where there is no index, ArtifactCorrupt for an invalid one."""
    text = _text(place)
    if text is None:
        return None
    try:
        index = Index.model_validate(unseal(text, INDEX))
    except ArtifactCorrupt as exc:
        raise ArtifactCorrupt(str(exc).removeprefix(f"{INDEX}: ")) from None
    except ValidationError as exc:
        raise ArtifactCorrupt(f"is sealed but not an index: {exc.errors()[0]['msg']}") from None
    # The seal holds for a copied index too; only its directory's name differs.
    if index.settings != place.name:
        raise ArtifactCorrupt(f"is the index of {index.settings[:12]}; it was put into the wrong place")
    return index.files


def _readable(place: Path) -> dict[str, FileRecord] | None:
    try:
        return _index(place)
    except ArtifactCorrupt:
        return None


def _text(place: Path) -> str | None:
    """The text of the index; None where there is none, an error message where it cannot be read."""
    try:
        with _open_plain(place / INDEX) as file:
            # A bad byte breaks the seal, which gives a better message than a UnicodeDecodeError.
            return file.read(INDEX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        return str(exc.strerror)


def _write(place: Path, files: Mapping[str, FileRecord], directory: Path) -> None:
    """Write the index of a directory."""
    index = Index(settings=place.name, files=dict(sorted(files.items())))
    (directory / INDEX).write_text(seal(index.model_dump(mode="json")))
    _put(directory / INDEX, place / INDEX)


def _tidy(place: Path, files: Mapping[str, FileRecord]) -> None:
    """Remove contents without an entry: replaced ones, and those of builders killed before the index."""
    # By digest: two names may share one content.
    needed = {record.sha256 for record in files.values()}
    for path in _contents(place):
        if path.name not in needed:
            _remove(path)


def _put(source: Path, target: Path) -> None:
    source.chmod(tree.READ_ONLY)
    tree.sync(source)
    if target.is_dir() and not target.is_symlink():
        _remove(target)
    source.replace(target)
    tree.sync(target.parent)


def _copy_verified(path: Path, record: FileRecord, copy: Path) -> str:
    """Copy a file if it matches its record, else return its problem; copies the verified bytes."""
    if problem := _file_problem(path, record):
        return problem
    try:
        with _open_plain(path) as file:
            # Read once, hashed and written from memory: between two reads the file could change.
            content = file.read()
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != record.sha256:
        return f"sha256 {sha256}; it should be {record.sha256}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)
    return ""


def _open_plain(path: Path) -> BufferedReader:
    """Open a file; OSError for a link, and no waiting for a pipe."""
    return open(path, "rb", opener=_open_no_follow)


def _open_no_follow(path: str, flags: int) -> int:
    # A link could lead out of the store, and opening a pipe would wait for a writer.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _file_problem(path: Path, record: FileRecord) -> str:
    """The problem of a file that is visible without reading it; empty if there is none."""
    try:
        stat_ = path.lstat()
    except OSError:
        return "missing"
    if not stat.S_ISREG(stat_.st_mode):
        return NO_FILE
    return "" if stat_.st_size == record.size else f"{stat_.st_size:,} bytes; they were {record.size:,}"


def _directory_problem(place: Path) -> str:
    """The problem of a path that must be a directory or missing; empty if there is none."""
    return NO_DIRECTORY if place.is_symlink() or (place.exists() and not place.is_dir()) else ""


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _contents(place: Path) -> list[Path]:
    return [path for path in _entries(place) if DIGEST.fullmatch(path.name)]


def _foreign(place: Path) -> list[Path]:
    return [path for path in _entries(place) if path.name != INDEX and not DIGEST.fullmatch(path.name)]


def _entries(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
