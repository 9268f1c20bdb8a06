"""Processes that need not import first: forked off one that has the store and the registry already."""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from typing import Any

FORKS = multiprocessing.get_context("forkserver")

IMPORTED = (
    "artifacts.store.cached", "artifacts.client", "artifacts.notify.deliver", "artifacts.collection.places", "artifacts.registry.registry",
    "artifacts.collection.sweep", "psycopg", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql",
)  # fmt: skip
"""What a new process finds imported."""


class Forked:
    """A process that runs code as `python -c CODE ARGS` does; its parent uses it like a `subprocess.Popen`."""

    def __init__(self, code: str, *args: object) -> None:
        FORKS.set_forkserver_preload([__name__, *IMPORTED])
        (stdin, ours), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
        self.stdin, self.stdout, self.stderr = os.fdopen(ours, "w"), os.fdopen(out), os.fdopen(err)
        theirs = [_Fd(stdin), _Fd(stdout), _Fd(stderr)]
        self.process = FORKS.Process(
            target=_run, args=(code, list(map(str, args)), dict(os.environ), theirs), daemon=False
        )
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill
        for fd in (stdin, stdout, stderr):
            os.close(fd)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, once it ended."""
        return self.process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; a TimeoutError if it still runs then."""
        self.process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
        return code

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Gives it its input and reads what it says until its end; errors are few."""
        if not self.stdin.closed:
            try:
                self.stdin.write(text)
                self.stdin.close()
            except BrokenPipeError:
                pass
        out, err = ("" if pipe.closed else pipe.read() for pipe in (self.stdout, self.stderr))
        self.stdout.close()
        self.stderr.close()
        self.wait(timeout)
        return out, err


class _Fd:
    """A file descriptor that a new process gets as a number of its own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, (DupFd(self.fd),)


def _detached(passed: Any) -> int:
    return int(passed.detach())


def _run(code: str, args: list[str], environment: Mapping[str, str], pipes: list[int]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, fd in enumerate(pipes):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["-c", *args]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
