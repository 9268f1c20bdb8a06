"""Programs that are not ours: nothing that they start outlives us, and their lines are heard as they come."""

import os
import signal
import subprocess  # noqa: TID251 a caller is killed from outside
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from pipeline.errors import BuildFailed
from pipeline.process.process import Job, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

FAMILY = """
import subprocess, sys, time
from pathlib import Path
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(sys.argv[1]).write_text(str(other.pid))
time.sleep(60)
"""
"""A program with a child of its own, whose process id it writes down."""


def guarded(tmp_path: Path, code: str, *, timeout_s: float = 60) -> Job:
    argv = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "pid")]
    return Job(
        name="tool", argv=argv, log=tmp_path / "log", timeout_s=timeout_s, env=os.environ, guarded=True
    )


def grandchild(tmp_path: Path) -> int:
    deadline = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int((tmp_path / "pid").read_text())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends(pid: int) -> None:
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines_are_heard_and_a_last_one_without_an_end_too(tmp_path: Path) -> None:
    heard: list[str] = []
    run(guarded(tmp_path, "print('a'); print('b', end='')"), on_line=heard.append)
    assert heard == ["a", "b"]


def test_the_exit_of_the_program_is_told_with_its_lines_but_not_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="tool failed: exit code 3") as caught:
        run(guarded(tmp_path, "print('the reason'); raise SystemExit(3)"), on_line=lambda _: None)
    assert "| the reason" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_kill_for_memory_is_named_through_the_guard(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="SIGKILL; the kernel does this when memory runs out"):
        run(guarded(tmp_path, "import os; os.kill(os.getpid(), 9)"))


def test_a_program_over_its_time_may_end_by_itself(tmp_path: Path) -> None:
    code = """
    import signal, sys, time
    def end(*_):
        open(sys.argv[1], "w").write("ended"); sys.exit()
    signal.signal(signal.SIGTERM, end)
    time.sleep(60)
    """
    with pytest.raises(BuildFailed, match="still running after 1 s"):
        run(guarded(tmp_path, code, timeout_s=1))
    assert (tmp_path / "pid").read_text() == "ended"


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="still running"):
        run(guarded(tmp_path, FAMILY, timeout_s=1))
    ends(grandchild(tmp_path))


@pytest.mark.slow
def test_what_a_program_started_dies_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from pipeline.process.process import Job, run
argv = {[sys.executable, "-c", FAMILY, str(tmp_path / "pid")]!r}
run(Job(name="t", argv=argv, log=Path({str(tmp_path / "log")!r}), timeout_s=60, env=os.environ, guarded=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as caller:
        process = grandchild(tmp_path)
        assert alive(process)
        os.kill(caller.pid, signal.SIGKILL)
        ends(process)
