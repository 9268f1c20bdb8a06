"""Runs a program that dies with whoever started it: `python -m pipeline.tether PARENT_PID PROGRAM ARG...`."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal a process gets when its parent dies; it outlives exec, but not fork."""


TETHERED = "ENGINERY_TETHERED"
"""Environment variable that asks a flow's process to die with the worker that started it."""


def argv(program: Sequence[str]) -> list[str]:
    """The command line that starts `program` tied to this process."""
    return [sys.executable, "-m", "pipeline.tether", str(os.getpid()), *program]


def tie(parent: int) -> None:
    """Asks the kernel to kill this process when `parent` dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def tie_if_asked() -> None:
    """Ties this process to the one that started it, where the environment says so."""
    if TETHERED in os.environ:
        tie(os.getppid())


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
