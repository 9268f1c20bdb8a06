"""File locks: held by one process at a time, and released by its death."""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.actor import whoami
from artifacts.errors import StoreBusy

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Pause between two attempts: polling, unlike a blocking call, reacts to Ctrl-C and cancellation."""

PATIENCE_S = 24 * 3600.0
"""Default wait for a lock: as long as a step may take."""

SHORT_PATIENCE_S = 15 * 60.0
"""Longest wait for a directory's own lock, which is held while litter is removed."""

TELL_AFTER_S = 2.0
"""Waits without a callback are logged once they last so long."""

PID_BYTES = 20
"""Length of the padded process id at the start of a lock file; `user@host` follows it."""

Waiting = Callable[[str], None]
"""Receives the holder and the longest wait, once per holder."""


def acquire(path: Path, waiting: Waiting | None = None, patience_s: float = PATIENCE_S) -> int:
    """Wait for the lock file at `path`; return its open descriptor for `release`.

    StoreBusy where another process holds it longer than `patience_s`.
    """
    watch = Watch(path, waiting, patience_s)
    while True:
        # Opened anew in every round: the holder removes the file, and the next one creates another.
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # A holder unlinks the file when it releases the lock. A lock on an unlinked file excludes nobody,
            # since newcomers create a new file: then try again with that one.
            if _try_lock(handle) and _is_still_at(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid():<{PID_BYTES}}{whoami()}".encode())
                lock_handle, handle = handle, -1
                return lock_handle
            holder = _holder(handle)
        finally:
            if handle >= 0:
                os.close(handle)
        watch.look(holder)
        time.sleep(POLL_S if holder else POLL_S / 100)  # without an id, the holder has just come or gone


class Watch:
    """Reports a wait once per holder, and ends it after the longest wait."""

    def __init__(self, path: Path, waiting: Waiting | None, patience_s: float) -> None:
        self.path, self.waiting, self.patience_s = path, waiting, patience_s
        self.since, self.told = time.monotonic(), ""

    def look(self, holder: str) -> None:
        """Record one failed attempt; `holder` has the lock, empty where it has not written its id yet."""
        waited_s, holder_name = time.monotonic() - self.since, holder or "another process"
        if waited_s > self.patience_s:
            raise StoreBusy(
                f"{holder_name} has held {self.path} for more than {_hours(self.patience_s)}; end that"
                " process if it hangs, and run again"
            )
        message = f"{holder_name}, at most {_hours(self.patience_s)}"
        if holder == self.told:
            return
        if self.waiting is not None:
            self.waiting(message)
        elif waited_s > TELL_AFTER_S:
            log.warning("waiting for %s, which holds %s", message, self.path)
        else:
            return
        self.told = holder


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} minutes"


def _holder(handle: int) -> str:
    """The holder that a lock file names: `process PID of USER@HOST`; empty if it is not written yet."""
    text = os.pread(handle, PID_BYTES + 400, 0).decode(errors="replace")
    pid, user = text[:PID_BYTES].strip(), text[PID_BYTES:].strip()
    return (f"process {pid}" + (f" of {user}" if user else "")) if pid else ""


def release(path: Path, handle: int) -> None:
    """Release the lock and remove its file."""
    # Unlink before the lock is released: a waiter that then gets the lock sees that its file is gone.
    path.unlink(missing_ok=True)
    os.close(handle)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a lock on a directory itself during the block; creates no file."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        watch, pause_s = Watch(directory, None, SHORT_PATIENCE_S), POLL_S / 100
        while not _try_lock(handle):
            watch.look("another process")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        # Unlike `lockf`, it belongs to the open file: closing another descriptor of it in this process keeps
        # it.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove lock files of killed processes."""
    for path in folder.glob("*.lock"):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        if _try_lock(handle) and _is_still_at(path, handle):
            release(path, handle)
        else:
            os.close(handle)
