"""Builders small enough to test the machinery with: real child processes, real files."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from artifacts.errors import StoreUnusable
from pipeline.errors import SourceError


def build(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Writes the params, after as many seconds as they say."""
    for done in range(5):
        progress(done, 5, "lines")
        time.sleep(job["params"].get("seconds", 0) / 5)
    (out / "result.txt").write_text(str(job["params"].get("text", "")))
    progress(5, 5, "lines")


def sleep(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Writes its process id where `out` says, then sleeps."""
    out.write_text(str(os.getpid()))
    time.sleep(60)


def fail(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Fails as a bug would."""
    raise RuntimeError("broken on purpose")


def fill_disk(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Writes until the disk is full."""
    with (out / "big").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    raise RuntimeError("the disk of this test holds more than 100 MiB")


def fill_temporary(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Writes beside the store until the disk is full; never to another disk, as Python would by itself."""
    with tempfile.NamedTemporaryFile("wb", dir=os.environ["TMPDIR"]) as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
            file.flush()
    raise RuntimeError("the disk of this test holds more than 100 MiB")


def complain(job: Mapping[str, Any], out: Path, progress: Callable[[int, int, str], None]) -> None:
    """Fails because of its source, or without one because of what it makes."""
    where = Path(job["inputs"].get("source", out)).resolve() / "config.json"
    if job["params"].get("crash"):
        raise RuntimeError(f"{where}: crashed on purpose")
    if job["params"].get("full"):
        raise StoreUnusable(f"{where}: No space left on device; use another")
    raise SourceError(f"{where}: is broken on purpose; repair it")
