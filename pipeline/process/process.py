"""The one door to child processes: log file, time limit, progress, peak memory, and a kill that takes all."""

import json
import os
import selectors
import signal
import subprocess  # noqa: TID251 this is the door
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.errors import EXIT_CODES, BuildFailed
from pipeline.process import tether
from pipeline.process.meter import Progress

PROGRESS_FD = "ENGINERY_PROGRESS_FD"
"""Environment variable that tells a child where its progress lines go."""

PARENT = "ENGINERY_PARENT"
"""Environment variable with our process id: a child dies when that process does."""

TAIL_LINES = 20
SAMPLE_S = 0.2
"""How often memory is sampled; a peak shorter than this is caught by the kernel's own high-water mark."""

NEWBORN_S = 0.1
"""Younger descendants are not counted yet."""

OnText = Callable[[str], None]
OnLine = Callable[[str], None]

GRACE_S = 10.0
"""How long a guarded program may take to end by itself after SIGTERM."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a finished child used."""

    seconds: float
    peak_memory_bytes: int
    """Largest resident memory of the child and its descendants together, sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A program to run."""

    name: str
    """Its name in messages."""
    argv: Sequence[str]
    log: Path
    timeout_s: float
    env: Mapping[str, str]
    guarded: bool = False
    """A program that is not ours: it and all it starts die with this process, and are asked to end before
    they are killed, so that a container's client can stop its container."""


def run(
    job: Job,
    on_progress: Progress | None = None,
    *,
    on_text: OnText | None = None,
    on_line: OnLine | None = None,
) -> Usage:
    """Runs `job`, output in its log; raises what the child reported, or BuildFailed, unless it exits 0.

    The whole process group dies with the call, whatever ends it. `on_line` gets each line of the log as it
    is written; then messages quote the log without naming the file.
    """
    started = time.monotonic()
    read_fd, write_fd = os.pipe()
    with job.log.open("wb") as out:
        child = subprocess.Popen(
            tether.guarded(job.argv) if job.guarded else list(job.argv),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**job.env, PROGRESS_FD: str(write_fd), PARENT: str(os.getpid())},
            pass_fds=(write_fd,),
            start_new_session=True,
        )
    # our copy of the write end: while it is open, the child's exit is no end of the pipe
    os.close(write_fd)
    follow = _Follow(job.log, on_line) if on_line else None
    watch = _Watch(child, read_fd, started + job.timeout_s, (on_progress, on_text, follow))
    try:
        in_time = watch.until_exit()
    finally:
        # a program that ended has nothing to be asked; its group is killed all the same
        if job.guarded and child.poll() is None:
            _ask_to_end(child)
        kill_group(child)
        os.close(read_fd)
    # before the child's own error: whatever it reported, the time limit is what ended it
    if not in_time:
        raise BuildFailed(_failure(job, f"still running after {job.timeout_s:g} s", named=follow is None))
    if watch.error is not None:
        # the child's words come before its exit code: they name the cause
        raise _reported(watch.error, job)
    if child.returncode:
        raise BuildFailed(_failure(job, describe_exit(child.returncode), named=follow is None))
    return Usage(time.monotonic() - started, watch.peak_bytes)


@dataclass(frozen=True, slots=True)
class Service:
    """A program that runs until it is stopped."""

    argv: Sequence[str]
    child: "subprocess.Popen[bytes]"
    log: Path

    def require(self) -> None:
        """Raises BuildFailed if the program has ended by itself."""
        code = self.child.poll()
        if code is not None:
            raise BuildFailed(
                _message(" ".join(self.argv[1:4]), self.log, f"ended by itself, {describe_exit(code)}")
            )

    def stop(self, grace_s: float = 15) -> None:
        """Asks the program to end, then kills what is left of its process group."""
        _ask_to_end(self.child, grace_s)
        kill_group(self.child)


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> Service:
    """Starts a program with its output in `log`; it dies with this process, even one killed by SIGKILL."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            tether.argv(argv),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(env),
            start_new_session=True,
        )
    return Service(argv, child, log)


def detach(argv: Sequence[str], *, env: Mapping[str, str]) -> None:
    """Starts a program that outlives this process, or is reaped by it; its output is dropped."""
    null = subprocess.DEVNULL
    started = subprocess.Popen(
        list(argv), stdin=null, stdout=null, stderr=null, env=dict(env), start_new_session=True
    )
    # reaps it: unwaited, it would stay a zombie while this process lives
    threading.Thread(target=started.wait, name="detached", daemon=True).start()


def capture(argv: Sequence[str], *, timeout_s: float = 10) -> str | None:
    """The standard output of a short program, or None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(list(argv), capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class _Watch:
    """Reads progress, samples memory and waits, in one loop."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        fd: int,
        deadline: float,
        hear: "tuple[Progress | None, OnText | None, _Follow | None]",
    ) -> None:
        self.child, self.fd, self.deadline = child, fd, deadline
        self.on_progress, self.on_text, self.follow = hear
        self.peak_bytes = 0
        self.seen: dict[int, float] = {}
        self.error: dict[str, Any] | None = None
        self.pending = b""

    def until_exit(self) -> bool:
        """Waits for the child; False if the time limit came first."""
        # `_drain` reads until nothing is there; a blocking read would wait for the next line
        os.set_blocking(self.fd, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.fd, selectors.EVENT_READ)
            while self.child.poll() is None:
                if time.monotonic() > self.deadline:
                    return False
                # a closed pipe is always ready: without the wait below, this would spin
                if selector.select(SAMPLE_S) and not self._drain():
                    with suppress(subprocess.TimeoutExpired):  # the pipe is closed: only the exit is left
                        self.child.wait(SAMPLE_S)
                self.peak_bytes = max(self.peak_bytes, resident_bytes(self.child.pid, self.seen))
                if self.follow is not None:
                    self.follow.catch_up()
        self._drain()
        if self.follow is not None:
            self.follow.catch_up(ended=True)
        return True

    def _drain(self) -> bool:
        """Handles the lines that are there; False at the end of the pipe."""
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            # a read may end within a line; the rest waits for the next one
            *lines, self.pending = (self.pending + data).split(b"\n")
            for line in lines:
                self._handle(json.loads(line))

    def _handle(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error = event["error"]
        elif "text" in event:
            if self.on_text is not None:
                self.on_text(event["text"])
        elif self.on_progress is not None:
            self.on_progress(event["done"], event["total"], event["unit"])


class _Follow:
    """Hands on the lines of a growing log."""

    def __init__(self, log: Path, on_line: OnLine) -> None:
        self.log, self.on_line, self.offset = log, on_line, 0

    def catch_up(self, *, ended: bool = False) -> None:
        """Hands on what was written since; a line without an end only once nothing more comes."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data if ended else data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self.on_line(line)


def resident_bytes(pid: int, seen: dict[int, float]) -> int:
    """Resident memory of a process and its descendants; 0 once it is gone.

    `seen` remembers when each descendant was first there: until it runs its own program, a new process has
    its parent's memory, which would count twice.
    """
    now, total = time.monotonic(), 0
    try:
        root = psutil.Process(pid)
        descendants = root.children(recursive=True)
        # sums of resident memory count shared pages once per process: an upper bound
        total = root.memory_info().rss
    except psutil.Error:
        return 0
    for process in descendants:
        if now - seen.setdefault(process.pid, now) >= NEWBORN_S:
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kills the child's whole process group and reaps it: an orphaned worker would keep its memory."""
    with suppress(ProcessLookupError):
        # the child leads its group since start_new_session, so its pid is the group's
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL; the kernel does this when memory runs out (see `dmesg`)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log; a log that is not there has none."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def _message(name: str, log: Path, reason: str) -> str:
    return _quoted(name, log, reason, f"  log: {log}")


def _failure(job: Job, reason: str, *, named: bool) -> str:
    return _message(job.name, job.log, reason) if named else _quoted(job.name, job.log, reason)


def _quoted(name: str, log: Path, reason: str, *more: str) -> str:
    return "\n".join([f"{name} failed: {reason}", *more, *(f"  | {line}" for line in tail(log))])


def _ask_to_end(child: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)


def _reported(error: Mapping[str, str], job: Job) -> Exception:
    """The child's own error, as the type it named; a type we do not know is a failed build."""
    # names, not pickles: what a child sends is data, and only known types are raised
    types = {kind.__name__: kind for kind in EXIT_CODES}
    kind = types.get(error["type"], BuildFailed)
    # other errors are the user's to mend, and the log adds nothing to them
    if kind is BuildFailed:
        return BuildFailed(f"{error['message']}\n  log: {job.log}")
    return kind(error["message"])
