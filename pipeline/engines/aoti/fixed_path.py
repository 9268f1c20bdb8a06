"""A directory under a path that depends on the job alone: compilers write paths into what they make."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts import digest
from pipeline.errors import BuildFailed
from pipeline.step.step_parameters import EngineJob


def name_of(job: EngineJob) -> str:
    """Name of a build: the same for the same settings and checkpoint, whatever store it is for."""
    checkpoint = job.inputs["sharded_checkpoint"].name
    return digest.of_json({"params": job.params.document(), "checkpoint": checkpoint})[:16]


@contextmanager
def fixed_place(directory: Path, name: str) -> Iterator[Path]:
    """Shows `directory` under a fixed path of this user for the block; same names take turns."""
    base = Path(tempfile.gettempdir()) / f"enginery-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    # The parent is everybody's: another user who made it first could change what it leads to.
    if base.stat().st_uid != os.getuid():
        raise BuildFailed(f"{base} belongs to another user; set TMPDIR to a directory of your own")
    # The file stays: a lock on one that is removed would not be seen by who opens the next.
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held while the block runs
        place = base / name
        place.unlink(missing_ok=True)  # of a build that was killed
        place.symlink_to(directory)
        try:
            yield place
        finally:
            place.unlink()
