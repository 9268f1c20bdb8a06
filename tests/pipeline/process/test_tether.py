"""Services that never outlive whoever started them."""

import os
import signal
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.errors import BuildFailed
from pipeline.process import process
from pipeline.process.host import service_env

pytestmark = pytest.mark.slow

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]


def wait_until(there, timeout_s: int = 20) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_service_runs_until_it_is_stopped(tmp_path: Path):
    service = process.start(SLEEP, log=tmp_path / "log", env=service_env())
    wait_until(lambda: (tmp_path / "log").read_text() == "here\n")
    service.require()
    service.stop()
    assert not psutil.pid_exists(service.child.pid)


def test_a_service_that_ends_by_itself_is_an_error_with_the_end_of_its_log(tmp_path: Path):
    code = "print('the reason'); raise SystemExit(3)"
    service = process.start([sys.executable, "-c", code], log=tmp_path / "log", env=service_env())
    service.child.wait(20)
    with pytest.raises(BuildFailed, match=r"(?s)ended by itself, exit code 3.*\| the reason"):
        service.require()


@pytest.mark.slow
def test_a_service_dies_with_a_caller_that_is_killed(tmp_path: Path):
    code = f"""
import time
from pathlib import Path
from pipeline.process import process
from pipeline.process.host import service_env
service = process.start({SLEEP!r}, log=Path({str(tmp_path / "log")!r}), env=service_env())
print(service.child.pid, flush=True)
time.sleep(60)
"""
    root = Path(process.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
    ) as caller:
        assert caller.stdout is not None
        service = psutil.Process(int(caller.stdout.readline()))
        wait_until(lambda: (tmp_path / "log").read_text() == "here\n")
        os.kill(caller.pid, signal.SIGKILL)
        wait_until(lambda: not service.is_running() or service.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_a_service_whose_caller_is_already_gone_does_not_start():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.process.tether", "1", *SLEEP], capture_output=True, text=True, check=False,
        env=service_env(), timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
