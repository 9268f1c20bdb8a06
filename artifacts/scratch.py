"""Directories that belong to a living process, and are recognised as litter once it died."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    with _gate(parent):  # `sweep` never sees a directory whose lock is not yet held
        claim = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}.{os.getpid()}."))
        try:
            held = os.open(claim / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            claim.rmdir()
            raise
        fcntl.flock(held, fcntl.LOCK_EX)
    files = claim / FILES
    try:
        files.mkdir()
        yield files
    finally:
        shutil.rmtree(files, ignore_errors=True)  # what stays is litter that `sweep` finds
        with _gate(parent):
            shutil.rmtree(claim, ignore_errors=True)
        os.close(held)


def sweep(parent: Path, prefix: str = "") -> list[Path]:
    """Remove the directories below `parent` whose owner died; return what was removed."""
    if not parent.is_dir():
        return []
    with _gate(parent):
        litter = [
            found for found in sorted(parent.glob(f"{prefix}*")) if found.is_dir() and not _owned(found)
        ]
        for found in litter:
            shutil.rmtree(found)
    return litter


def _owned(claim: Path) -> bool:
    try:
        held = os.open(claim / LOCK, os.O_RDWR)
    except FileNotFoundError:  # died between two system calls, or while removing it
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


@contextmanager
def _gate(parent: Path) -> Iterator[None]:
    held = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
