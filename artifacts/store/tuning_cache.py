"""What builds learned, kept for later builds of the same settings: files under a sealed index.

The store has a directory per settings, named by their digest. Contents are named by their own digests, and
the index, which gives them their names, is replaced at once: a builder killed at any moment leaves the one
before or the one after. What does not match its seal, or stands in no index, is never offered.
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
"""Longest index that is read: that of 60,000 files is shorter."""
DIGEST = re.compile("[0-9a-f]{64}")

UNSEALED = "what enginery 0.1 kept has no seal"
UNLISTED = "stands in no index"
NO_FILE, NO_DIRECTORY = "not a plain file", "not a directory"


class Index(Frozen):
    """What a directory offers."""

    version: Literal[1] = 1
    """Version of this layout."""
    settings: Sha256
    """Name of the directory: the index of another one is none."""
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
    """Add files below `learned` to a directory, in place of those of the same names; an OSError if it cannot.

    A file that is not what its record says is left out.
    """
    if _misplaced(place):
        place.unlink()
    place.mkdir(parents=True, exist_ok=True)
    with scratch(staging, FOLDER) as aside, alone(place):
        index = _readable(place)
        if index is None:  # so that contents without one are known to have lost it
            _write(place, {}, aside)
        kept = dict(index or {})
        for name, record in files.items():
            content = place / record.sha256
            if kept.get(name) == record and not _odd(content, record):
                continue
            if not _copied(learned / name, record, aside / record.sha256):
                _put(aside / record.sha256, content)
                kept[name] = record
        _write(place, kept, aside)
        _tidy(place, kept)


def offer(place: Path, target: Path, staging: Path) -> list[str]:
    """Copy what matches its seal to `target`; remove the rest from the directory, and say what that was.

    What is in `target` then was verified there: nobody changes it in the store meanwhile.
    """
    target.mkdir(parents=True, exist_ok=True)
    if odd := _misplaced(place):
        place.unlink()
        return [odd]
    if not place.exists():
        return []
    with scratch(staging, FOLDER) as aside, alone(place):
        problems, right = _offered(place, target)
        foreign = _foreign(place)
        if foreign and not _exists(place / INDEX):
            problems.append(UNSEALED)
        else:
            problems += [f"{path.name}: {UNLISTED}" for path in foreign]
        if problems:
            _write(place, right, aside)
        for path in foreign:
            _remove(path)
        _tidy(place, right)
    return problems


def mend(place: Path, staging: Path) -> list[str]:
    """Remove what does not match its seal, and say what that was; a later build learns it again."""
    with scratch(staging, FOLDER) as aside:
        return offer(place, aside / "right", staging)


def listed(place: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Contents with the digest that each is to have, and what is wrong as far as it shows without reading.

    What 0.1 kept is neither: nothing says what it should be, and nothing reads it any more.
    """
    while True:
        before = _text(place)
        wanted, problems = _listed(place)
        if not problems or _text(place) == before:  # else a builder has replaced the index meanwhile
            return wanted, problems


def _listed(place: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    if odd := _misplaced(place):
        return {}, {place: odd}
    contents, sealed = _contents(place), _exists(place / INDEX)
    problems = dict.fromkeys(_foreign(place) if sealed else (), UNLISTED)
    try:
        index = _index(place)
    except ArtifactCorrupt as exc:
        return {path: path.name for path in contents}, {**problems, place / INDEX: str(exc)}
    if index is None and contents:
        problems[place / INDEX] = "missing"
    for name, record in (index or {}).items():
        if what := _odd(place / record.sha256, record):
            problems[place / record.sha256] = f"{name}: {what}"
    return {path: path.name for path in contents if path not in problems}, problems


def _offered(place: Path, target: Path) -> tuple[list[str], dict[str, FileRecord]]:
    """What is wrong with the entries, and the right ones, which are then in `target`."""
    try:
        index = _index(place)
    except ArtifactCorrupt as exc:
        return [f"{INDEX}: {exc}"], {}
    if index is None:
        return [f"{INDEX}: missing"] if _contents(place) else [], {}
    wrong = {name: _copied(place / one.sha256, one, target / name) for name, one in index.items()}
    problems = [f"{name}: {what}" for name, what in wrong.items() if what]
    return problems, {name: record for name, record in index.items() if not wrong[name]}


def _index(place: Path) -> dict[str, FileRecord] | None:
    """Names and records; None where there is no index, an ArtifactCorrupt for one that is not its own."""
    text = _text(place)
    if text is None:
        return None
    try:
        found = Index.model_validate(unseal(text, INDEX))
    except ArtifactCorrupt as exc:
        raise ArtifactCorrupt(str(exc).removeprefix(f"{INDEX}: ")) from None
    except ValidationError as exc:
        raise ArtifactCorrupt(f"is sealed and no index: {exc.errors()[0]['msg']}") from None
    if found.settings != place.name:
        raise ArtifactCorrupt(f"is the index of {found.settings[:12]}; it was put into the wrong place")
    return found.files


def _readable(place: Path) -> dict[str, FileRecord] | None:
    try:
        return _index(place)
    except ArtifactCorrupt:
        return None


def _text(place: Path) -> str | None:
    """An index as it stands; None where there is none, what is no sealed text where it is no such file."""
    try:
        with _opened(place / INDEX) as file:
            return file.read(INDEX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        return str(exc.strerror)


def _write(place: Path, files: Mapping[str, FileRecord], aside: Path) -> None:
    """Gives a directory its index."""
    index = Index(settings=place.name, files=dict(sorted(files.items())))
    (aside / INDEX).write_text(seal(index.model_dump(mode="json")))
    _put(aside / INDEX, place / INDEX)


def _tidy(place: Path, files: Mapping[str, FileRecord]) -> None:
    """Removes contents of entries that gave way, and of builders that were killed before they listed them."""
    needed = {record.sha256 for record in files.values()}
    for path in _contents(place):
        if path.name not in needed:
            _remove(path)


def _put(aside: Path, target: Path) -> None:
    aside.chmod(tree.READ_ONLY)
    tree.sync(aside)
    if target.is_dir() and not target.is_symlink():
        _remove(target)
    aside.replace(target)
    tree.sync(target.parent)


def _copied(path: Path, record: FileRecord, copy: Path) -> str:
    """Copies a file if it is what its record says, else says what is wrong; the copy is what was verified."""
    if odd := _odd(path, record):
        return odd
    try:
        with _opened(path) as file:
            content = file.read()
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        return f"sha256 {found}; it should be {record.sha256}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)
    return ""


def _opened(path: Path) -> BufferedReader:
    """Opens a file; a link is an OSError, and a pipe is not waited at."""
    return open(path, "rb", opener=_unlinked)


def _unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _odd(path: Path, record: FileRecord) -> str:
    """What shows of a file without reading it; empty: nothing."""
    try:
        found = path.lstat()
    except OSError:
        return "missing"
    if not stat.S_ISREG(found.st_mode):
        return NO_FILE
    return "" if found.st_size == record.size else f"{found.st_size:,} bytes; they were {record.size:,}"


def _misplaced(place: Path) -> str:
    """Why a path cannot be a directory of ours; empty: it is one, or nothing is there."""
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
