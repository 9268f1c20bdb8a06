"""Directories that belong to a living process, and are recognised as litter once it died."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artifacts.store.lock import acquire, alone, release

AHEAD_S = 3600.0
"""Times so far ahead are of a clock that was wrong; those of a file server may differ from ours by less."""

LOCK = "lock"
FILES = "files"


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty directory below `parent`, removed afterwards unless the block renamed it.

    Its owner holds a file lock for as long as it lives. The kernel drops the lock at death, however that
    comes, so that neither a reused process id nor another container's numbering can make a dead owner look
    alive. The directory is named with the process id for people who look.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with alone(parent):  # `sweep` never sees a directory whose lock is not yet held
        claim = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}.{os.getpid()}."))
        try:
            handle = os.open(claim / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            claim.rmdir()
            raise
        fcntl.flock(handle, fcntl.LOCK_EX)
    files = claim / FILES
    try:
        files.mkdir()
        yield files
    finally:
        _remove(files)  # what stays is litter that `sweep` finds
        with alone(parent):
            _remove(claim)
        os.close(handle)


@contextmanager
def resumable(directory: Path) -> Iterator[Path]:
    """Yield a directory as whoever used it last left it; it stays unless the block renames or removes it.

    One process has it at a time; others wait.
    """
    lock = directory.with_name(f"{directory.name}.lock")
    handle = acquire(lock)
    try:
        directory.mkdir(exist_ok=True)
        yield directory
    finally:
        release(lock, handle)


def sweep(parent: Path, prefix: str = "") -> list[Path]:
    """Remove the directories below `parent` whose owner died; return what was removed."""
    if not parent.is_dir():
        return []
    with alone(parent):
        dead = _litter(parent, prefix)
        for directory in dead:
            _remove(directory / FILES)  # before the lock file, which says that the rest is ours to remove
            _remove(directory)
    return dead


def litter(parent: Path, prefix: str = "") -> list[Path]:
    """The directories that `sweep` would remove."""
    if not parent.is_dir():
        return []
    with alone(parent):
        return _litter(parent, prefix)


def _litter(parent: Path, prefix: str) -> list[Path]:
    return [
        directory
        for directory in sorted(parent.iterdir())
        if directory.name.startswith(prefix) and _dead(directory)
    ]


def sweep_old(parent: Path, max_age_s: float) -> list[Path]:
    """Remove the directories below `parent` in which nothing was written for so long; return them."""
    if not parent.is_dir():
        return []
    age_anew(parent)
    since = time.time() - max_age_s
    old = [
        directory
        for directory in sorted(parent.iterdir())
        if directory.is_dir() and _changed(directory) < since
    ]
    for directory in old:
        _remove(directory)
    return old


def age_anew(parent: Path) -> None:
    """Begin the age of what lies below `parent` now, where its time is still to come.

    A clock that was ahead wrote it and was set back: by its time it would stay for as long as that was ahead.
    """
    for entry in parent.iterdir() if parent.is_dir() else ():
        for path in (entry, *(entry.iterdir() if entry.is_dir() and not entry.is_symlink() else ())):
            with suppress(FileNotFoundError, PermissionError):  # it ended meanwhile, or is another user's
                if path.lstat().st_mtime > time.time() + AHEAD_S:
                    os.utime(path, follow_symlinks=False)


def _changed(folder: Path) -> float:
    """When a directory or a file in it was written last, seconds since the epoch; now if it just vanished."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return time.time()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _dead(claim: Path) -> bool:
    """Whether it is a directory of ours whose owner died; one without a lock file is, if it is empty."""
    if not claim.is_dir():
        return False
    try:
        handle = os.open(claim / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return not any(claim.iterdir())
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
