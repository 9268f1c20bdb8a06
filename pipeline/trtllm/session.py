"""One process of a toolchain's Python that has an engine loaded, and how we talk to it."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from artifacts.errors import StoreUnusable
from pipeline.errors import BuildFailed
from pipeline.process import full_disk, process, tether
from pipeline.toolchains.toolchain import Toolchain

SCRIPT = Path(__file__).with_name("scripts") / "trtllm_worker.py"

POLL_S = 0.01
CHECK_S = 0.5
"""How often the process is asked whether it still runs."""
LOAD_TIMEOUT_S = 3600.0
"""Weights from a slow disk, CUDA graphs and an autotuner's warm-up."""
STOP_TIMEOUT_S = 20.0

AUTOTUNER_CACHE = "TLLM_AUTOTUNER_CACHE_PATH"
"""Environment variable that names the file of the autotuner's cache, read and written while loading."""


def command(
    toolchain: Toolchain, program: str, *arguments: str, env: Mapping[str, str], mounts: Sequence[Path]
) -> list[str]:
    """The command that runs a program with more environment variables, in an image too.

    Our PYTHONPATH is dropped: the toolchain's Python must not find our packages.
    """
    variables = [f"{name}={value}" for name, value in env.items()]
    if toolchain.kind == "container":
        return toolchain.argv("env", *variables, toolchain.program(program), *arguments, mounts=mounts)
    return ["env", "-u", "PYTHONPATH", *variables, *toolchain.argv(program, *arguments)]


class Session:
    """An engine loaded by the toolchain's runtime; use as a context manager."""

    def __init__(
        self, toolchain: Toolchain, job: Mapping[str, Any], mounts: Sequence[Path], env: Mapping[str, str]
    ) -> None:
        self.toolchain, self.job, self.mounts, self.env = toolchain, job, mounts, env
        self.scratch = tempfile.TemporaryDirectory(prefix="enginery-trtllm-")
        self.place = Path(self.scratch.name)
        self.heard, self.pending = 0, ""

    def __enter__(self) -> Self:
        """Starts the process and waits until the engine is loaded."""
        self.alive = (self.place / "alive").open("w")
        # The worker ends when the lock is free: the kernel frees it even where this process is killed.
        fcntl.flock(self.alive, fcntl.LOCK_EX)
        # Each side opens the other's file for reading, maybe before a line is in it.
        for name in ("requests", "answers"):
            (self.place / name).touch()
        paths = {name: str(self.place / name) for name in ("alive", "requests", "answers")}
        job_file = self.place / "job.json"
        job_file.write_text(json.dumps({**self.job, "version": self.toolchain.version, **paths}))
        mounts = (SCRIPT.parent, self.place, *self.mounts)
        argv = command(self.toolchain, "python", str(SCRIPT), str(job_file), env=self.env, mounts=mounts)
        self.service = process.start(tether.guarded(argv), log=self.log, env=dict(os.environ))
        try:
            self._answer(lambda event: None, "load", time.monotonic() + LOAD_TIMEOUT_S)
        # `__exit__` does not run after a failure in here.
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process."""
        # After a failure the worker may be stuck in a call: it is killed at once.
        if kind is None:
            self._ask("stop", {})
            ends = time.monotonic() + STOP_TIMEOUT_S
            while self.service.child.poll() is None and time.monotonic() < ends:
                time.sleep(POLL_S)
        self.stop()

    @property
    def log(self) -> Path:
        """File with the process's output."""
        return self.place / "worker.log"

    def call(
        self, name: str, on_event: Callable[[Any], None] = lambda event: None, **params: Any
    ) -> dict[str, Any]:
        """Runs a function of the worker; BuildFailed with the end of its log when it fails or dies."""
        self._ask(name, params)
        return self._answer(on_event, name, None)

    def stop(self) -> None:
        """Kills what still runs; answers are already here."""
        self.service.stop()
        self.alive.close()
        with suppress(OSError):  # a container's user may have left files that are not ours to remove
            self.scratch.cleanup()

    def _ask(self, name: str, params: Mapping[str, Any]) -> None:
        with (self.place / "requests").open("a") as out:
            out.write(json.dumps({"call": name, "params": dict(params)}) + "\n")

    def _answer(self, on_event: Callable[[Any], None], name: str, deadline: float | None) -> dict[str, Any]:
        checked = time.monotonic()
        while True:
            for message in self._messages():
                if "event" in message:
                    on_event(message["event"])
                elif "error" in message:
                    raise self._failure(name, message["error"])
                else:
                    result: dict[str, Any] = message["result"]
                    return result
            now = time.monotonic()
            if now - checked > CHECK_S:
                checked = now
                self._require(name, deadline)
            time.sleep(POLL_S)

    def _messages(self) -> list[dict[str, Any]]:
        with (self.place / "answers").open() as file:
            file.seek(self.heard)
            text = file.read()
        # In bytes, as `seek` counts; answers are JSON in ASCII, so a read ends inside no character.
        self.heard += len(text.encode())
        # The last piece is half a line where the worker is still writing.
        *lines, self.pending = (self.pending + text).split("\n")
        return [json.loads(line) for line in lines]

    def _require(self, name: str, deadline: float | None) -> None:
        """Raises BuildFailed where no answer will come."""
        code = self.service.child.poll()
        # A worker that answered before it ended has answered.
        if code is not None and not (self.place / "answers").read_bytes()[self.heard :]:
            raise self._failure(name, f"the process ended by itself, {process.describe_exit(code)}")
        if deadline is not None and time.monotonic() > deadline:
            raise self._failure(name, f"not loaded after {LOAD_TIMEOUT_S:g} s")

    def _failure(self, name: str, reason: str) -> BuildFailed | StoreUnusable:
        quoted = [f"  | {line}" for line in process.tail(self.log)]
        who = f"TensorRT-LLM {self.toolchain.version}, {name}"
        return full_disk.explain_failure(BuildFailed("\n".join([f"{who}: {reason}", *quoted])), who)
