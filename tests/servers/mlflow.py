"""A real MLflow server, in an environment of its own: its requirements and ours cannot be met together.

`ENGINERY_TEST_MLFLOW` may name a Python that has MLflow; otherwise an environment is made once and kept in
the user's cache.
"""

import os
import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

VERSION = "3.17.2"
START_S = 120


def python() -> Path:
    """A Python that has MLflow; skips the test where none can be made."""
    if named := os.environ.get("ENGINERY_TEST_MLFLOW"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = cache / "enginery-tests" / f"mlflow-{VERSION}-py{sys.version_info[0]}{sys.version_info[1]}"
    program, done = home / "bin" / "python", home / "done"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        install = [program, "-m", "pip", "install", "--quiet", f"mlflow=={VERSION}"]
        made = subprocess.run(install, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"MLflow cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
        done.touch()
    return program


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
