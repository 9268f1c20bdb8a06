"""The child process that builds a job: the job's file, and the command that reads it."""

import json
import sys
from pathlib import Path
from typing import Any

from calibration.job import Job
from pipeline.process import process
from pipeline.process.host import child_env

DOOR = "pipeline.child.door"
"""Module that a child process runs; it knows what makes each kind."""


def child_job(
    job: Job[Any, Any], *, name: str, log: Path, timeout_s: float, module: str = DOOR
) -> process.Job:
    """The process that builds `job`; writes the job's file beside the log.

    `name` is what messages call it.
    """
    file = log.with_suffix(".job.json")
    file.write_text(json.dumps(job.document(), indent=2), encoding="utf-8")
    return process.Job(
        name=name,
        argv=[sys.executable, "-m", module, str(file)],
        log=log,
        timeout_s=timeout_s,
        env=child_env(job.kind.partition(".")[0]),
    )
