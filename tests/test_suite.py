"""How the suite is run: what is slow, what is shared, what may be committed; pytest runs on small suites."""

import signal
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
from pathlib import Path

import pytest
import yaml

from tests import compiler, large_files

ROOT = Path(__file__).resolve().parent.parent

CONFTEST = """
import pytest
from tests.suite import (
    pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_terminal_summary,
)

@pytest.fixture(scope="session")
def built():
    return 1

@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    return request.param
"""

STARTS = """
import subprocess, sys, time
def run():
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


@pytest.fixture
def suite(tmp_path: Path):
    """Runs pytest on these files with these options; returns what it printed."""

    def run(files: dict[str, str], *options: str) -> str:
        for name, text in {"conftest.py": CONFTEST, **files}.items():
            (tmp_path / name).write_text(text)
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-p",
            "no:cacheprovider",
            "-o",
            "markers=slow",
            "-o",
            "addopts=",
        ]
        where = [
            "--rootdir",
            str(tmp_path),
            "-c",
            str(tmp_path / "pytest.ini"),
            str(tmp_path),
            "-o",
            f"pythonpath={ROOT}",
        ]
        done = subprocess.run(
            [*argv, *where, *options], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return run


@pytest.mark.slow
def test_an_unmarked_test_that_starts_a_program_fails(suite):
    tests = f"""
import pytest
{STARTS}
def test_unmarked(): run()
@pytest.mark.slow
def test_marked(): run()
@pytest.fixture
def started(): run()
def test_by_a_fixture(started): pass
def test_alone(): pass
"""
    output = suite({"test_programs.py": tests}, "-m", "not slow")
    assert "test_unmarked FAILED" in output
    assert f"starts {sys.executable} and is not marked slow" in output
    assert "test_by_a_fixture ERROR" in output
    assert "1 failed, 1 passed, 1 deselected, 1 error" in output


@pytest.mark.slow
def test_what_uses_a_fixture_that_starts_a_program_is_slow(suite):
    tests = """
import time
def test_of_a_run(built): pass
def test_of_a_registry(database_url): pass
def test_long(): time.sleep(2.1)
"""
    output = suite({"test_marks.py": tests}, "-m", "not slow")
    assert "2 passed, 2 deselected" in output
    assert "test_of_a_registry[sqlite] PASSED" in output
    assert "2.1 s test_marks.py::test_long" in output


@pytest.mark.slow
def test_processes_run_every_test_once_and_files_of_one_fixture_together(suite, tmp_path: Path):
    files = {f"test_{n}.py": f"def test_it({'built' if n in (1, 4) else ''}): pass" for n in range(6)}
    claims = tmp_path / "claims"
    claims.mkdir()
    (claims / str(tmp_path / "test_3.py").strip("/").replace("/", "-")).touch()
    second = suite(files, "--share", "2/2", "--claims", str(claims))
    ran = [Path(line.split("::")[0]).name for line in second.splitlines() if "PASSED" in line]
    assert ran == ["test_2.py", "test_5.py", "test_0.py", "test_1.py", "test_4.py"]
    assert "PASSED" not in suite(files, "--share", "1/2", "--claims", str(claims))


@pytest.mark.slow
def test_a_suite_in_the_background_can_interrupt_its_children(suite):
    tests = """
import signal
def test_it(): assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert "1 passed" in suite({"test_signal.py": tests})
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_same_source_is_compiled_once_and_another_anew(tmp_path: Path):
    real, count = tmp_path / "real" / "g++", tmp_path / "count"
    real.parent.mkdir()
    real.write_text(f'#!/bin/sh\necho x >> {count}\n[ "$1" = -c ] || exit 3\ncp "$2" "$4"\n')
    real.chmod(0o755)
    cached = compiler.program(tmp_path / "cache", str(real))
    source, target = tmp_path / "a.cpp", tmp_path / "a.o"

    def compiled(*more: str) -> str:
        target.unlink(missing_ok=True)
        subprocess.run([cached, "-c", source, "-o", target, *more], check=True)
        return target.read_text()

    source.write_text("one")
    assert [compiled(), compiled(), count.read_text()] == ["one", "one", "x\n"]
    source.write_text("two")
    assert [compiled(), compiled("-O3"), count.read_text()] == ["two", "two", "x\nx\nx\n"]
    assert subprocess.run([cached, "--version"], check=False).returncode == 3


def test_hooks_fetch_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_a_large_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(bytes(500_000))
    large.write_bytes(bytes(500_001))
    monkeypatch.setattr(sys, "argv", ["large_files", str(small)])
    assert large_files.main() == 0
    monkeypatch.setattr(sys, "argv", ["large_files", str(small), str(large)])
    assert large_files.main() == 1
    assert capsys.readouterr().out == f"{large} has 500,001 bytes; at most 500,000 may be committed\n"
