"""Builders small enough to test the machinery with: real child processes, real files."""

import os
import tempfile
import time
from typing import Any

from pydantic import ConfigDict

from artifacts.errors import StoreUnusable
from calibration.job import Job, Parameters, Places
from pipeline.errors import SourceError
from pipeline.process.meter import Progress


class ToyParams(Parameters):
    """Whatever a toy is asked for."""

    model_config = ConfigDict(extra="allow")

    @property
    def asked(self) -> dict[str, Any]:
        """Name -> value."""
        return self.model_extra or {}


class ToyPlaces(Places):
    """Whatever a toy's step knows of the host."""

    model_config = ConfigDict(extra="allow")


ToyJob = Job[ToyParams, ToyPlaces]


def build(job: ToyJob, progress: Progress) -> None:
    """Writes the params, after as many seconds as they say."""
    for done in range(5):
        progress(done, 5, "lines")
        time.sleep(job.params.asked.get("seconds", 0) / 5)
    (job.out / "result.txt").write_text(str(job.params.asked.get("text", "")))
    progress(5, 5, "lines")


def sleep(job: ToyJob, progress: Progress) -> None:
    """Writes its process id where the job says, then sleeps."""
    job.out.write_text(str(os.getpid()))
    time.sleep(60)


def fail(job: ToyJob, progress: Progress) -> None:
    """Fails as a bug would."""
    raise RuntimeError("broken on purpose")


def fill_disk(job: ToyJob, progress: Progress) -> None:
    """Writes until the disk is full."""
    with (job.out / "big").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    raise RuntimeError("the disk of this test holds more than 100 MiB")


def fill_temporary(job: ToyJob, progress: Progress) -> None:
    """Writes beside the store until the disk is full; never to another disk, as Python would by itself."""
    with tempfile.NamedTemporaryFile("wb", dir=os.environ["TMPDIR"]) as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
            file.flush()
    raise RuntimeError("the disk of this test holds more than 100 MiB")


def complain(job: ToyJob, progress: Progress) -> None:
    """Fails because of its source, or without one because of what it makes."""
    where = job.inputs.get("source", job.out).resolve() / "config.json"
    if job.params.asked.get("crash"):
        raise RuntimeError(f"{where}: crashed on purpose")
    if job.params.asked.get("full"):
        raise StoreUnusable(f"{where}: No space left on device; use another")
    raise SourceError(f"{where}: is broken on purpose; repair it")
