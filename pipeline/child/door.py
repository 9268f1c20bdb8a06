"""Entry of the child process: `python -m pipeline.child.door JOB.json` calls the builder of the kind."""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from pipeline.child.kinds import Maker, maker
from pipeline.errors import EXIT_CODES
from pipeline.process.process import PARENT, PROGRESS_FD
from pipeline.process.progress_pipe import ProgressPipe
from pipeline.process.tether import tie


def load(address: str) -> Callable[..., None]:
    """The function that `module:function` names."""
    module, _, function = address.partition(":")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def main(job_file: Path, find: Callable[[str], Maker] = maker) -> int:
    """Calls the builder that `find` has for the job's kind.

    Errors that a user can act on go to the parent as typed messages, bugs as a traceback.
    """
    tie(int(os.environ[PARENT]))
    progress = ProgressPipe(int(os.environ[PROGRESS_FD]))
    document = json.loads(job_file.read_text(encoding="utf-8"))
    row = find(document["kind"])
    try:
        load(row.function)(row.job.read(document), progress)
    except tuple(EXIT_CODES) as exc:
        progress.send({"error": {"type": type(exc).__name__, "message": str(exc)}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
