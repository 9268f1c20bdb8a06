"""Starts one process per rank of an engine, talks to them, and notices when one dies."""

import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch._C._distributed_c10d import TCPStore

from artifacts.errors import StoreUnusable
from pipeline.engines.aoti.aoti_worker import Rank
from pipeline.engines.aoti.calls import CALLS
from pipeline.errors import BuildFailed
from pipeline.process import full_disk
from pipeline.process.tether import tie

LOG_TAIL_LINES = 20
STOP_TIMEOUT_S = 5.0

Answer = tuple[str, Any]
"""(`result`, value) ends a call, (`event`, value) streams, (`error`, text) is a traceback."""


class Ranks:
    """Every rank of an engine as a process; use as a context manager."""

    def __init__(self, directory: Path, world_size: int) -> None:
        self.directory, self.world_size = directory, world_size
        self.scratch = tempfile.TemporaryDirectory(prefix="enginery-ranks-")
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []

    def __enter__(self) -> Self:
        """Starts the ranks and waits until all have loaded."""
        # Spawned: a forked child would inherit locks of torch's threads as they are.
        context, port = get_context("spawn"), _free_port()
        for rank in range(self.world_size):
            pipe, rank_end = context.Pipe()
            args = (self.directory, rank, (self.world_size, port), rank_end, self.log(rank))
            process = context.Process(target=serve, args=args, daemon=True)
            process.start()
            # With this copy open, the pipe would not end when the rank dies.
            rank_end.close()
            self.pipes.append(pipe)
            self.processes.append(process)
        try:
            self._collect(lambda event: None)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the ranks."""
        self.stop()

    def log(self, rank: int) -> Path:
        """File with a rank's output."""
        return Path(self.scratch.name) / f"rank{rank}.log"

    def call(
        self, name: str, on_event: Callable[[Any], None] = lambda event: None, **params: Any
    ) -> list[Any]:
        """Runs a function of `calls` on every rank; returns each rank's result.

        Raises BuildFailed with the rank and the end of its log when one fails or dies; a StoreUnusable where
        the disk of temporary files is full.
        """
        for rank, pipe in enumerate(self.pipes):
            try:
                pipe.send((name, params))
            except OSError:  # EPIPE or ECONNRESET, by how far the rank got
                raise self._death(rank) from None
        return self._collect(on_event)

    def stop(self) -> None:
        """Kills what still runs; results are already here."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join(STOP_TIMEOUT_S)
        for pipe in self.pipes:
            pipe.close()
        self.scratch.cleanup()

    def _collect(self, on_event: Callable[[Any], None]) -> list[Any]:
        results: dict[int, Any] = {}
        while len(results) < self.world_size:
            waiting = {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in results}
            ends = {process.sentinel: rank for rank, process in enumerate(self.processes)}
            ready = connection.wait([*waiting, *ends])
            # Pipes first: a rank that answered before it died has answered.
            for pipe in (item for item in ready if item in waiting):
                self._take(waiting[pipe], results, on_event)
            for rank in (ends[item] for item in ready if item in ends and ends[item] not in results):
                raise self._death(rank)
        return [results[rank] for rank in range(self.world_size)]

    def _take(self, rank: int, results: dict[int, Any], on_event: Callable[[Any], None]) -> None:
        try:
            kind, value = self.pipes[rank].recv()
        except (EOFError, OSError):  # ECONNRESET where the rank died with our call unread
            raise self._death(rank) from None
        if kind == "error":
            raise self._failure(rank, "failed")
        if kind == "event":
            on_event(value)
        else:
            results[rank] = value

    def _death(self, rank: int) -> BuildFailed | StoreUnusable:
        # The pipe may break before the process has ended and has an exit code.
        self.processes[rank].join(STOP_TIMEOUT_S)
        return self._failure(rank, f"died with exit code {self.processes[rank].exitcode}")

    def _failure(self, rank: int, how: str) -> BuildFailed | StoreUnusable:
        lines = self.log(rank).read_text(errors="replace").splitlines() if self.log(rank).exists() else []
        tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:]) or "  (nothing)"
        who = f"rank {rank} of {self.world_size} of the engine"
        return full_disk.explain_failure(BuildFailed(f"{who} {how}; the end of its log:\n{tail}"), who)


def serve(directory: Path, rank: int, meeting: tuple[int, int], pipe: Connection, log: Path) -> None:
    """Body of a rank's process: loads, reports that, and answers calls until the pipe closes."""
    # The parent may be killed without a chance to stop its ranks.
    tie(os.getppid())
    _redirect(log)
    try:
        world_size, port = meeting
        store = None if world_size == 1 else TCPStore("127.0.0.1", port, world_size, is_master=rank == 0)
        engine = Rank(directory, rank, store)
        pipe.send(("result", None))
        while True:
            name, params = pipe.recv()
            pipe.send(("result", CALLS[name](engine, lambda event: pipe.send(("event", event)), **params)))
    except EOFError:  # the parent is done
        os._exit(0)
    except BaseException:  # noqa: BLE001 whatever it is, it goes to the log and to the parent
        traceback.print_exc()
        sys.stderr.flush()
        with suppress(OSError):
            pipe.send(("error", None))
        os._exit(1)  # destructors of a broken group may wait for peers


def _redirect(log: Path) -> None:
    """Sends this process's output, native code's too, to its log."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(target, stream.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides


def _free_port() -> int:
    # Somebody may take the port before rank 0 listens: then the rank fails, and says so in its log.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
