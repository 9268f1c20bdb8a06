"""The door to child processes: real children, really killed."""

import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from calibration.errors import DataError
from pipeline.errors import BuildFailed
from pipeline.process.host import child_env
from pipeline.process.process import Job, run

pytestmark = pytest.mark.slow

PROGRESS = "import json, os; send = lambda e: os.write(int(os.environ['ENGINERY_PROGRESS_FD']), json.dumps(e).encode() + b'\\n')\n"


def job(tmp_path: Path, code: str, *, timeout_s: float = 60) -> Job:
    """A job that runs Python code."""
    return Job(
        name="job",
        argv=[sys.executable, "-c", PROGRESS + textwrap.dedent(code)],
        log=tmp_path / "log",
        timeout_s=timeout_s,
        env=child_env("engine"),
    )


def test_output_goes_to_the_log_and_progress_to_the_listener(tmp_path: Path):
    seen = []
    code = "print('hello'); send({'done': 1, 'total': 2, 'unit': 'tokens'}); send({'done': 2, 'total': 2, 'unit': 'tokens'})"
    usage = run(job(tmp_path, code), lambda *event: seen.append(event))
    assert seen == [(1, 2, "tokens"), (2, 2, "tokens")]
    assert (tmp_path / "log").read_text() == "hello\n"
    assert usage.seconds > 0


def test_streamed_text_arrives_in_order(tmp_path: Path):
    pieces: list[Any] = []
    run(job(tmp_path, "send({'text': 'a'}); send({'text': 'b'})"), on_text=pieces.append)
    assert pieces == ["a", "b"]


def test_a_failure_quotes_the_end_of_the_log(tmp_path: Path):
    with pytest.raises(BuildFailed, match="exit code 3") as caught:
        run(job(tmp_path, "import sys; print('the reason'); sys.exit(3)"))
    assert "| the reason" in str(caught.value)


def test_an_error_that_the_child_names_comes_out_as_that_type(tmp_path: Path):
    code = "import sys; send({'error': {'type': 'DataError', 'message': 'a.jsonl:3: broken'}}); sys.exit(1)"
    with pytest.raises(DataError, match=r"a\.jsonl:3: broken"):
        run(job(tmp_path, code))


def test_an_out_of_memory_kill_is_named(tmp_path: Path):
    with pytest.raises(BuildFailed, match="SIGKILL; the kernel does this when memory runs out"):
        run(job(tmp_path, "os.kill(os.getpid(), 9)"))


def test_a_crash_names_its_signal(tmp_path: Path):
    with pytest.raises(BuildFailed, match="killed by SIGSEGV"):
        run(job(tmp_path, "os.kill(os.getpid(), 11)"))


def test_the_time_limit_takes_the_grandchildren_too(tmp_path: Path):
    code = f"""
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    open({str(tmp_path / "pid")!r}, 'w').write(str(child.pid))
    time.sleep(60)
    """
    with pytest.raises(BuildFailed, match="still running after 1 s"):
        run(job(tmp_path, code, timeout_s=1))
    wait_gone(int((tmp_path / "pid").read_text()))


def test_peak_memory_counts_the_whole_family(tmp_path: Path):
    size = 200 << 20
    code = f"import time; block = b'x' * {size}; time.sleep(1.0)"
    assert size < run(job(tmp_path, code)).peak_memory_bytes < 3 * size


def test_an_interrupt_kills_the_child(tmp_path: Path, run_python: Callable[[str], str]):
    pid_file = tmp_path / "pid"
    code = f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); import time; time.sleep(60)"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path, code))
    wait_gone(int(pid_file.read_text()))


@pytest.mark.slow
def test_a_child_dies_with_its_killed_orchestrator(tmp_path: Path):
    started = tmp_path / "pid"
    code = f"""
    import json, sys
    from pathlib import Path
    from pipeline.process.host import child_env
    from pipeline.process.process import Job, run
    file = Path({str(tmp_path / "job.json")!r})
    file.write_text(json.dumps({{"kind": "engine.sleep", "out": {str(started)!r}, "params": {{}}, "places": {{}}, "inputs": {{}}}}))
    run(Job(name='inner', argv=[sys.executable, "-m", "tests.pipeline.toy_child", str(file)], log=Path({str(tmp_path / "inner.log")!r}), timeout_s=60, env=child_env("engine")))
    """
    orchestrator = psutil.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[3])
    try:
        wait_for(started)
        pid = int(started.read_text())
    finally:
        orchestrator.kill()
        orchestrator.wait()
    wait_gone(pid)


def wait_for(path: Path, seconds: float = 20) -> None:
    """Waits until a file has content."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def wait_gone(pid: int, seconds: float = 10) -> None:
    """Waits until a process is gone or a zombie."""
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_the_environment_is_explicit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_HOUSE", "x")
    run(job(tmp_path, "print(sorted(os.environ))"))
    names = (tmp_path / "log").read_text()
    assert "SECRET_OF_THE_HOUSE" not in names
    assert "HF_HUB_OFFLINE" in names


@pytest.mark.parametrize(("kind", "passed"), [("source", True), ("engine", False)])
def test_the_hub_token_reaches_only_the_step_that_downloads(
    monkeypatch: pytest.MonkeyPatch, kind: str, passed: bool
):
    monkeypatch.setenv("HF_TOKEN", "t")
    assert ("HF_TOKEN" in child_env(kind)) == passed
    assert os.environ["HF_TOKEN"] == "t"


def test_memory_that_a_new_process_shares_with_its_parent_is_counted_once(tmp_path: Path):
    made = job(
        tmp_path,
        """
        import time
        held = bytearray(200 << 20)
        send({"done": 0, "total": 1, "unit": "x"})
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            pid = os.fork()  # has all that we have, and ends at once
            if pid == 0:
                time.sleep(0.02)
                os._exit(0)
            os.waitpid(pid, 0)
        """,
    )
    assert run(made, lambda *_: None).peak_memory_bytes < 300 << 20
