"""What several test modules share."""

import json
import os
import shutil
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import compiler
from tests.callables import Cli
from tests.main_job import DEMO, MIXED, write_recipe
from tests.servers.postgres import database_url, postgres, postgres_url
from tests.servers.s3 import awake_s3, bucket, proxy, s3_server
from tests.suite import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_terminal_summary,
)

__all__ = [
    "awake_s3", "bucket", "database_url", "postgres", "postgres_url", "proxy", "s3_server",
    "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "pytest_terminal_summary",
]  # fmt: skip
"""Fixtures of real servers, for every test, and how the suite is run."""

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def compiled_once(pytestconfig: pytest.Config) -> Iterator[None]:
    """Compiles the same C++ file once, for all tests and their children; the cache is kept between sessions."""
    real = shutil.which("g++")
    if real is None or "CXX" in os.environ:
        yield
        return
    script = compiler.program(pytestconfig.cache.mkdir("compiled"), real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="session")
def run_python() -> Callable[[str], str]:
    """Runs Python code in a fresh interpreter at the repository's root; returns its stdout."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def cli() -> Cli:
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


@pytest.fixture(scope="session")
def built(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory with a recipe and a store with its one published version, and what the run answered."""
    root = tmp_path_factory.mktemp("main_job")
    model = Path(shutil.copytree(DEMO / "model", root / "model"))
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    made = {"format": MIXED, "kv_cache": "fp8", "engine__tp": 2, "model__path": str(model)}
    recipe = write_recipe(root / "recipe.yaml", name="test/mixed", **made)
    done = cli("--store", root / "store", "--json", "run", recipe)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)
