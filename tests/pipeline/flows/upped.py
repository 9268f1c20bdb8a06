"""A running `enginery up` for tests, started as people start it, and recipes for it."""

import json
import os
import signal
import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from recipes.load import Loaded
from recipes.schema import Recipe

ROOT = Path(__file__).resolve().parents[3]


def loaded(name: str, *, options: dict[str, Any] | None = None, **more: Any) -> Loaded:
    """A recipe for toys."""
    recipe = {
        "version": 1, "name": name, "model": {"path": "model"}, "format": "none",
        "engine": {"options": options or {}},
        "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.01}},
    }  # fmt: skip
    return Loaded(Recipe.model_validate(recipe | more), ROOT / "recipe.yaml")


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_up(store: Path, port: int, stderr: Path, **env: str) -> subprocess.Popen[str]:
    """`enginery up`, its answer to be read."""
    argv = ["--store", str(store), "--json", "up", "--port", str(port), "--runs", "2"]
    with stderr.open("w") as story:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *argv],
            stdout=subprocess.PIPE,
            stderr=story,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )


@contextmanager
def running(base: Path, port: int, **env: str) -> Iterator[dict[str, Any]]:
    """Server and worker of `base/store`, their story in `base/stderr`; yields the answer of `up`.

    Ctrl-C ends them and whatever they started.
    """
    up = start_up(base / "store", port, base / "stderr", **env)
    assert up.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = up.stdout.readline()
        assert line, (base / "stderr").read_text()
        text += line
    family = psutil.Process(up.pid).children(recursive=True)
    try:
        yield json.loads(text)
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 0
        assert [process for process in family if alive(process)] == []
    finally:
        up.stdout.close()
        for process in filter(alive, (psutil.Process(up.pid), *family) if up.poll() is None else family):
            process.kill()
        up.wait()


def alive(process: psutil.Process) -> bool:
    """Whether the process still runs."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
