"""What several test modules share."""

import os
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def run_python():
    """Runs Python code in a fresh interpreter at the repository's root; returns its stdout."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def cli():
    """Runs `enginery ARGS` as a shell would; returns the finished process."""

    def run(*args: str | Path, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "160", **env},
            timeout=timeout,
            check=False,
        )

    return run
