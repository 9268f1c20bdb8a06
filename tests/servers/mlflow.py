"""A real MLflow server: tracking, model registry and artifacts, in an environment over the tests' own.

MLflow without what training and its pages need (`mlflow-skinny`, Flask and aiohttp) finds most of its requirements in
the tests' environment; pip adds the others, about 70 MB, to one that is made once for each such environment
and kept in the user's cache. `ENGINERY_TEST_MLFLOW` may name a Python that has MLflow instead.
"""

import hashlib
import importlib.metadata
import os
import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.required import missing

WANTED = ("mlflow-skinny==3.17.2", "Flask==3.1.3", "Flask-CORS==6.0.5", "aiohttp==3.14.5")

START_S = 120


def python() -> Path:
    """A Python that has MLflow; skips the test where none can be made."""
    if named := os.environ.get("ENGINERY_TEST_MLFLOW"):
        return Path(named)
    home = _cache() / f"mlflow-{_below()}"
    program, done = home / "bin" / "python", home / "done"
    if not done.exists():
        venv.create(home, clear=True)
        ours = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
        (ours / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        install = [sys.executable, "-m", "pip", "--python", str(program), "install", "--quiet", *WANTED]
        made = subprocess.run(install, capture_output=True, text=True, check=False)
        if made.returncode:
            missing(f"MLflow cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
        done.touch()
    return program


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "enginery-tests"


def _below() -> str:
    """What tells one environment to build on from another: where it is, and what is in it."""
    found = {f"{one.name}=={one.version}" for one in importlib.metadata.distributions()}
    said = [*WANTED, sys.version, sysconfig.get_path("purelib"), *sorted(found)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Runs a server with its database and artifacts in `directory`; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [
        *(python(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"),
        *("--artifacts-destination", directory / "artifacts"),
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTHON", "GIT"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(
            list(map(str, argv)), stdout=log, stderr=log, env=env, cwd=directory, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _await(server, address, directory / "log")
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait()


def _await(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"{address}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        alive = server.poll() is None and time.monotonic() < deadline
        assert alive, log.read_text()[-2000:]
        time.sleep(0.2)
