"""Calls of the command line in a child process that is watched: a call that hangs or takes much memory is told.

One child carries out many calls, as `enginery` would one: 500 MB beyond its imports, and a time limit per call.
"""

import json
import os
import select
import signal
import subprocess  # noqa: TID251 what is watched is another process
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SECONDS = 20.0
"""A call that takes longer hangs; on a quiet machine 2 s are allowed, says `tests/benchmarks/refusals.py`."""

MEMORY_BYTES = 500 << 20
"""What a call may take beyond what the imports take."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one call ended."""

    code: int
    """Exit code; -1 for a call that was killed because it hung."""
    out: str
    err: str
    seconds: float

    @property
    def answered(self) -> bool:
        """Whether it ended as a command may: no hang, no traceback, no bug."""
        return self.code in range(5) and "Traceback" not in self.err and "this is a bug" not in self.err


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `enginery`, or of another function of this module's child."""

    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    encoding: str = "utf-8"


def watched(calls: Iterable[Call], *, seconds: float = SECONDS) -> Iterator[Ended]:
    """Carries out the calls in order; a child that hangs is killed, and another one goes on."""
    child: subprocess.Popen[bytes] | None = None
    try:
        for call in calls:
            child = child or _started()
            ended = _ended(child, call, seconds)
            if ended.code == -1:
                _kill(child)
                child = None
            yield ended
    finally:
        if child is not None:
            _kill(child)


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.watched"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def _kill(child: "subprocess.Popen[bytes]") -> None:
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _ended(child: "subprocess.Popen[bytes]", call: Call, seconds: float) -> Ended:
    assert child.stdin is not None
    assert child.stdout is not None
    start = time.monotonic()
    fields = {"argv": call.argv, "env": call.env, "cwd": call.cwd, "encoding": call.encoding}
    child.stdin.write(json.dumps(fields).encode() + b"\n")
    child.stdin.flush()
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    line = child.stdout.readline() if ready else b""
    if not line:
        return Ended(-1, "", "hung, or killed for its memory", time.monotonic() - start)
    return Ended(**json.loads(line))


def _serve() -> None:
    """Carries out what stdin asks for, line by line."""
    import resource

    from pipeline.cli import main
    from pipeline.cli.commands import check, run  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    used = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    for line in requests:
        answers.write(json.dumps(_carried_out(main, json.loads(line))) + "\n")
        answers.flush()


def _carried_out(cli: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    import io

    kept, streams = dict(os.environ), (sys.stdout, sys.stderr, sys.argv)
    coding = {"encoding": call["encoding"], "write_through": True}
    sys.stdout = stdout = io.TextIOWrapper(io.BytesIO(), **coding)
    sys.stderr = stderr = io.TextIOWrapper(io.BytesIO(), errors="backslashreplace", **coding)
    sys.argv = ["enginery", *call["argv"]]
    os.environ.update(call["env"] or {})
    os.chdir(call["cwd"] or ROOT)
    start = time.monotonic()
    try:
        cli.main()
    except SystemExit as exc:
        code = exc.code
    finally:
        seconds = time.monotonic() - start
        sys.stdout, sys.stderr, sys.argv = streams
        os.environ.clear()
        os.environ.update(kept)
        os.chdir(ROOT)
    texts = [stream.detach().getvalue().decode(errors="replace") for stream in (stdout, stderr)]
    return {"code": code, "out": texts[0], "err": texts[1], "seconds": seconds}


if __name__ == "__main__":
    _serve()
