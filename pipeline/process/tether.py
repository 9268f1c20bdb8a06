"""Runs a program that dies with its parent: `python -m pipeline.process.tether PARENT_PID PROGRAM ARG...`.

With `--guard` before the process id, everything that the program starts dies with it: a process of ours stays
above it, leads their group, and kills the group.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal a process gets when its parent dies; it outlives exec, but not fork."""


PATIENCE_S = 5.0
"""How long a guarded program may take to end before its group is killed."""

TETHERED = "ENGINERY_TETHERED"
"""Environment variable that asks a flow's process to die with the worker that started it."""


def argv(program: Sequence[str]) -> list[str]:
    """The command line that starts `program` tied to this process."""
    return [sys.executable, "-m", "pipeline.process.tether", str(os.getpid()), *program]


def guarded(program: Sequence[str]) -> list[str]:
    """The command line that starts `program` so that it, and all it starts, dies with this process.

    It needs no PYTHONPATH, which would reach the program's own Python.
    """
    return [sys.executable, "-I", __file__, "--guard", str(os.getpid()), *program]


def tie(parent: int, with_signal: signal.Signals = signal.SIGKILL) -> None:
    """Asks the kernel to send a signal to this process when `parent` dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def guard(parent: int, program: Sequence[str]) -> int:
    """Runs `program` to its end; on SIGTERM, or orphaned, terminates it and then kills the whole group.

    This process leads the group. Ends as the program ended: with its exit code, or by the same signal.
    """
    child, asked_to_end = 0, False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        if child:
            os.kill(child, signal.SIGTERM)
        # an alarm, because waitpid below waits without a limit
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    # before `tie`: from then on the signal may come at any moment
    signal.signal(signal.SIGTERM, end)
    tie(parent, signal.SIGTERM)
    # a signal in this very moment finds `child` still 0: then the alarm ends the group
    child = os.posix_spawnp(program[0], list(program), os.environ)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if asked_to_end:
        os.killpg(0, signal.SIGKILL)
    if code < 0:
        with suppress(OSError):  # SIGKILL has only its default
            signal.signal(-code, signal.SIG_DFL)
        # dies by the same signal, so that the parent reads the true cause from the status
        os.kill(os.getpid(), -code)
    return code


def tie_if_asked() -> None:
    """Ties this process to the one that started it, where the environment asks for it."""
    if TETHERED in os.environ:
        tie(os.getppid())


if __name__ == "__main__":
    if sys.argv[1] == "--guard":
        sys.exit(guard(int(sys.argv[2]), sys.argv[3:]))
    tie(int(sys.argv[1]))
    # the death signal outlives exec (see PR_SET_PDEATHSIG), so no process of ours stays
    os.execvp(sys.argv[2], sys.argv[2:])
