"""The child's side of the door: `python -m pipeline.child JOB.json` makes what the job's kind says."""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import EXIT_CODES
from pipeline.kinds import Maker, maker
from pipeline.process import PARENT, PROGRESS_FD
from pipeline.tether import tie

MIN_INTERVAL_S = 0.1


class ProgressPipe:
    """Writes progress as JSON lines to the parent, at most ten a second, the last one always."""

    def __init__(self, fd: int) -> None:
        self.fd, self.sent_at = fd, 0.0

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Reports that `done` of `total` units are finished."""
        now = time.monotonic()
        if done < total and now - self.sent_at < MIN_INTERVAL_S:
            return
        self.sent_at = now
        self.send({"done": int(done), "total": int(total), "unit": unit})

    def text(self, piece: str) -> None:
        """Streams a piece of generated text."""
        self.send({"text": piece})

    def send(self, event: dict[str, Any]) -> None:
        """Writes one event."""
        os.write(self.fd, json.dumps(event).encode() + b"\n")


def load(address: str) -> Callable[..., None]:
    """The function that `module:function` names."""
    module, _, function = address.partition(":")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def main(job_file: Path, find: Callable[[str], Maker] = maker) -> int:
    """Makes what the job's kind says, as `find` knows it.

    What a user can act on goes to the parent as a typed message, bugs as a traceback.
    """
    tie(int(os.environ[PARENT]))
    job = json.loads(job_file.read_text())
    progress = ProgressPipe(int(os.environ[PROGRESS_FD]))
    try:
        load(find(job["kind"]).function)(job, Path(job["out"]), progress)
    except tuple(EXIT_CODES) as exc:
        progress.send({"error": {"type": type(exc).__name__, "message": str(exc)}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
