"""Temporary directories that belong to a live process and are removable once it has died."""

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
"""Times further ahead than this come from a wrong clock; a file server's clock may differ by less."""

LOCK = "lock"
FILES = "files"


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty directory below `parent`, removed afterwards unless the block renamed it.

    Its owner holds a file lock while it lives, which the kernel releases at its death. So neither a reused
    process id nor the numbering of another container can make a dead owner look alive; the process id in the
    name is only for people.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with alone(parent):  # so that `sweep` never sees a directory whose lock is not held yet
        claim = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}.{os.getpid()}."))
        try:
            handle = os.open(claim / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            claim.rmdir()
            raise
        fcntl.flock(handle, fcntl.LOCK_EX)
    # The files have a directory of their own, which a commit renames away while the lock stays.
    files = claim / FILES
    try:
        files.mkdir()
        yield files
    finally:
        _remove(files)  # if this is interrupted, `sweep` removes the rest
        with alone(parent):
            _remove(claim)
        os.close(handle)


@contextmanager
def resumable(directory: Path) -> Iterator[Path]:
    """Yield a directory in its state after the last use; it stays unless the block renames or removes it.

    One process uses it at a time; others wait.
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
            _remove(
                directory / FILES
            )  # the lock file goes last: without it, the rest could not be recognised
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
    """Remove the directories below `parent` that were not written for so long; return them."""
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
    """Set times in the future to now, for entries below `parent` and one level deeper.

    A wrong clock wrote them and was corrected since; by their times they would not expire for years.
    """
    for entry in parent.iterdir() if parent.is_dir() else ():
        for path in (entry, *(entry.iterdir() if entry.is_dir() and not entry.is_symlink() else ())):
            with suppress(FileNotFoundError, PermissionError):  # removed meanwhile, or another user's
                if path.lstat().st_mtime > time.time() + AHEAD_S:
                    os.utime(path, follow_symlinks=False)


def _changed(folder: Path) -> float:
    """Time of the last write to a directory or its files, s since the epoch; now if it was just removed."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return time.time()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _dead(claim: Path) -> bool:
    """Whether the owner of a temporary directory has died; without a lock file, whether it is empty."""
    if not claim.is_dir():
        return False
    try:
        handle = os.open(claim / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return not any(claim.iterdir())
    try:
        # A lock that can be taken has no living owner; closing the handle gives it back.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
