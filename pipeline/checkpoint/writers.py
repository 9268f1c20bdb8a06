"""Writes the files of a layout in parallel processes; the first that fails stops the others.

Why processes and not threads. Not for speed: nearly all of the work is copying inside the kernel, where both
are equally fast, and processes cost their start. But a process that the kernel kills, for its memory or for a
file that shrank under its mapping (SIGBUS), is one failure with a name instead of the end of the whole step,
one that hangs can be killed, and what the interpreter gathers row by row never waits for another rank's rows.
Little work is done in this process: BYTES_PER_PROCESS is the price of one more.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import c_uint64
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

import psutil

from pipeline.errors import BuildFailed, SourceError
from pipeline.process.meter import Progress
from pipeline.process.process import describe_exit
from pipeline.process.tether import tie

MAX_PROCESSES = 8
"""Files written at once; more of them only make a disk seek."""

BYTES_PER_PROCESS = 1 << 30
"""Written in about the time that a process needs to start on a busy machine."""

PROCESS_BYTES = 128 << 20
"""Memory of one process, generously: interpreter and numpy (40 MB), pieces and the copies of pieces."""

REPORT_S = 0.5

Wrote = Callable[[int], None]


class Task(Protocol):
    """One file to write, in a process that gets it pickled."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def nbytes(self) -> int:
        """Bytes that will be reported."""

    def write(self, wrote: Wrote) -> None:
        """Writes the file and tells `wrote` the bytes of every piece."""


def processes(tasks: Sequence[Task]) -> int:
    """How many to use: bounded by files, cores, free memory and the work there is; 1: this one does it."""
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().available
    work = sum(task.nbytes for task in tasks) // BYTES_PER_PROCESS
    return max(1, min(len(tasks), cores, MAX_PROCESSES, memory // PROCESS_BYTES, work))


def write_all(tasks: Sequence[Task], progress: Progress, count: int | None = None) -> None:
    """Writes all files in `count` processes; a failure leaves none of them.

    What a process raised is raised write_in_turn. One that dies without a word is a BuildFailed.
    """
    count = processes(tasks) if count is None else count
    run = _Run(tasks, progress)
    try:
        if count > 1:
            run.write_in_processes(count)
        else:
            run.write_in_turn()
    except BaseException:
        for task in run.begun:
            task.path.unlink(missing_ok=True)
        raise


@dataclass(slots=True)
class _Run:
    """The files begun, and the bytes of them that are written."""

    tasks: Sequence[Task]
    progress: Progress
    done: Any = None
    """Bytes written, per task; shared with the processes."""
    begun: list[Task] = field(default_factory=list)
    total: int = 0
    """Bytes of all files."""

    def __post_init__(self) -> None:
        self.total = sum(task.nbytes for task in self.tasks)
        # Spawn, not fork: the parent has threads of numpy and mmaps, which a forked child must not inherit.
        # Each task has a slot of its own, so the counters need no lock.
        self.done = multiprocessing.get_context("spawn").RawArray(c_uint64, len(self.tasks))

    def write_in_turn(self) -> None:
        """Writes one file after the other."""
        for number, task in enumerate(self.tasks):
            self._claim_file(task)
            task.write(_Counter(self.done, number, self._report))
        self._report()

    def write_in_processes(self, count: int) -> None:
        """Deals the files to `count` processes; all of them are killed if one fails."""
        for task in self.tasks:
            self._claim_file(task)
        # Round robin, because rank files of one stage have equal sizes and stages differ.
        running = [self._start_writer(range(first, len(self.tasks), count)) for first in range(count)]
        try:
            while running:
                connection.wait([writer.process.sentinel for writer in running], REPORT_S)
                self._report()
                for writer in [writer for writer in running if not writer.process.is_alive()]:
                    running.remove(writer)
                    self._raise_failure(writer)
        finally:
            for writer in running:
                writer.process.kill()
                writer.process.join()

    def _claim_file(self, task: Task) -> None:
        """Records a new file for removal on failure; an existing file is refused and kept."""
        if task.path.exists():
            raise FileExistsError(f"{task.path} exists; give an empty directory")
        self.begun.append(task)

    def _report(self) -> None:
        self.progress(sum(self.done), self.total, "bytes")

    def _start_writer(self, numbers: range) -> "_Writer":
        """Starts a process for some of the files; it dies with this one, however that dies."""
        context = multiprocessing.get_context("spawn")
        parent_end, child_end = context.Pipe(duplex=False)
        work = [(self.tasks[number], _Counter(self.done, number)) for number in numbers]
        process = context.Process(target=_write, args=(work, child_end, os.getpid()), daemon=True)
        process.start()
        # Otherwise the parent keeps the pipe open, and recv waits for ever after the child died.
        child_end.close()
        return _Writer(numbers, process, parent_end)

    def _raise_failure(self, writer: "_Writer") -> None:
        """Raises what a finished process reported; one that failed without a word is a BuildFailed."""
        writer.process.join()
        code = writer.process.exitcode
        if not code:
            return
        with suppress(EOFError):  # it died without a word
            raise writer.said.recv()
        how = "killed by SIGBUS; a file that it read was cut short" if code == -signal.SIGBUS else ""
        # A process writes its files in order: the first incomplete one is where it died.
        unfinished = [n for n in writer.numbers if self.done[n] < self.tasks[n].nbytes] or [
            writer.numbers[-1]
        ]
        raise BuildFailed(
            f"{self.tasks[unfinished[0]].path.name} was not finished: {how or describe_exit(code)}"
        )


@dataclass(frozen=True, slots=True)
class _Counter:
    """Adds up the bytes of one file."""

    done: Any
    number: int
    after: Callable[[], None] | None = None

    def __call__(self, nbytes: int) -> None:
        """Counts a piece."""
        self.done[self.number] += nbytes
        if self.after is not None:
            self.after()


@dataclass(frozen=True, slots=True)
class _Writer:
    """One process, and the end of the pipe in which it says what went wrong."""

    numbers: range
    """Its files, in the order it writes them."""
    process: SpawnProcess
    said: "connection.Connection[Any, Any]"


def _write(
    work: list[tuple[Task, _Counter]], results: "connection.Connection[Any, Any]", parent: int
) -> None:
    """What a process does; what a user can act on goes to the parent, which raises it, a bug to the log."""
    tie(parent)
    try:
        for task, counter in work:
            task.write(counter)
    except (BuildFailed, SourceError, OSError) as exc:
        results.send(exc)
        sys.exit(1)
