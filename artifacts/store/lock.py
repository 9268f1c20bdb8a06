"""The sole right to do something, held by one process at a time and freed by its death."""

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
"""How often a waiting process looks again; it polls so that Ctrl-C and cancelled threads get through."""

PATIENCE_S = 24 * 3600.0
"""How long a lock is waited for: as long as a step may take unless its user says otherwise."""

SHORT_PATIENCE_S = 15 * 60.0
"""How long a directory's own lock is waited for, which is held while litter is removed."""

TELL_AFTER_S = 2.0
"""Waits that nobody listens to are logged once they last so long."""

PID_BYTES = 20
"""At the start of a lock file, padded with spaces; who that is follows."""

Waiting = Callable[[str], None]
"""Told for whom and how long at most, once per holder."""


def acquire(path: Path, waiting: Waiting | None = None, patience_s: float = PATIENCE_S) -> int:
    """Wait until the lock file at `path` is ours, and return its open descriptor for `release`.

    A holder that keeps it longer than `patience_s` is a StoreBusy.
    """
    watch = Watch(path, waiting, patience_s)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
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
        time.sleep(POLL_S if holder else POLL_S / 100)  # a holder is writing its id, or has just left


class Watch:
    """Tells whoever waits for whom, once per holder, and ends the wait when it was long enough."""

    def __init__(self, path: Path, waiting: Waiting | None, patience_s: float) -> None:
        self.path, self.waiting, self.patience_s = path, waiting, patience_s
        self.since, self.told = time.monotonic(), ""

    def look(self, holder: str) -> None:
        """Once around: `holder` has it now; it is empty where that is not written yet."""
        waited_s, holder_name = time.monotonic() - self.since, holder or "another process"
        if waited_s > self.patience_s:
            raise StoreBusy(
                f"{holder_name} has held {self.path} for more than {_hours(self.patience_s)}; see whether it"
                " still works, end it if not, and run again"
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
    """Who wrote itself into a lock file: `process PID of USER@HOST`; empty where nobody has yet."""
    text = os.pread(handle, PID_BYTES + 400, 0).decode(errors="replace")
    pid, user = text[:PID_BYTES].strip(), text[PID_BYTES:].strip()
    return (f"process {pid}" + (f" of {user}" if user else "")) if pid else ""


def release(path: Path, handle: int) -> None:
    """Give the lock back; whoever waits finds its open file unlinked and makes a new one."""
    path.unlink(missing_ok=True)
    os.close(handle)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Have a directory's own lock for the block, after whoever has it; no file is made for that."""
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
    """Remove lock files that processes left behind when they were killed."""
    for path in folder.glob("*.lock"):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        if _try_lock(handle) and _is_still_at(path, handle):
            release(path, handle)
        else:
            os.close(handle)
