"""The sole right to do something, held by one process at a time and freed by its death."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.1
"""How often a waiting process looks again; it polls so that Ctrl-C and cancelled threads get through."""

Waiting = Callable[[int], None]
"""Told the process id of the holder, once per holder."""


def acquire(path: Path, waiting: Waiting | None = None) -> int:
    """Wait until the lock file at `path` is ours, and return its open descriptor for `release`."""
    told = 0
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if _locked(opened) and _still(path, opened):
                os.ftruncate(opened, 0)
                os.write(opened, str(os.getpid()).encode())
                kept, opened = opened, -1
                return kept
            holder = int(os.pread(opened, 20, 0) or 0)
        finally:
            if opened >= 0:
                os.close(opened)
        if holder and holder != told and waiting is not None:
            waiting(holder)
            told = holder
        time.sleep(POLL_S if holder else POLL_S / 100)  # a holder is writing its id, or has just left


def release(path: Path, held: int) -> None:
    """Give the lock back; whoever waits finds its open file unlinked and makes a new one."""
    path.unlink(missing_ok=True)
    os.close(held)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Have a directory's own lock for the block, after whoever has it; no file is made for that."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _locked(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove lock files that processes left behind when they were killed."""
    for path in folder.glob("*.lock"):
        try:
            opened = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        if _locked(opened) and _still(path, opened):
            release(path, opened)
        else:
            os.close(opened)
