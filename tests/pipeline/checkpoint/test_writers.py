"""Files written in parallel processes: complete, counted, stopped by the first failure, and never half there."""

import os
import signal
import subprocess  # noqa: TID251 the writing process is killed from outside
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.checkpoint.writers import BYTES_PER_PROCESS, processes, write_all
from pipeline.errors import BuildFailed, SourceError
from tests.checkpoints import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Pages:
    """A file of so many pages, with what happens on the way."""

    path: Path
    pages: int = 3
    then: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return 4096 * self.pages

    def write(self, wrote) -> None:
        """Writes page after page."""
        with self.path.open("xb") as out:
            for _ in range(self.pages):
                out.write(bytes(4096))
                wrote(4096)
            if self.then == "refuse":
                raise SourceError(f"{self.path.name}: the source is broken; fetch it again")
            if self.then == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.then == "crash":
                raise KeyError("a bug")
            while self.then == "hang":
                time.sleep(0.1)


def tasks(directory: Path, *then):
    return [Pages(directory / f"rank{number}", then=each) for number, each in enumerate(then)]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_file_is_written_and_every_byte_reported(tmp_path: Path, count: int):
    seen = []
    write_all(tasks(tmp_path, "", "", ""), lambda *event: seen.append(event), count)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == dict.fromkeys(
        ("rank0", "rank1", "rank2"), 3 * 4096
    )
    assert seen[-1] == (9 * 4096, 9 * 4096, "bytes")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_process_raises_is_raised_and_nothing_stays(tmp_path: Path, count: int):
    with pytest.raises(SourceError, match="rank1: the source is broken; fetch it again"):
        write_all(tasks(tmp_path, "", "refuse", ""), lambda *_: None, count)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("then", "said"), [("die", "SIGKILL; the kernel does this"), ("crash", "exit code 1")]
)
def test_a_process_that_dies_is_named_and_stops_the_others(tmp_path: Path, then: str, said: str):
    before = time.monotonic()
    with pytest.raises(BuildFailed, match=f"rank1 was not finished: .*{said}"):
        write_all(tasks(tmp_path, "hang", then, "hang"), lambda *_: None, 3)
    assert time.monotonic() - before < 20
    assert list(tmp_path.iterdir()) == []
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_file_that_is_there_already_is_refused_and_kept(tmp_path: Path):
    (tmp_path / "rank1").write_text("not ours")
    with pytest.raises(FileExistsError, match="rank1 exists; give an empty directory"):
        write_all(tasks(tmp_path, "", "", ""), lambda *_: None, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["rank1"]
    assert (tmp_path / "rank1").read_text() == "not ours"


def test_processes_die_with_the_one_that_started_them(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from pipeline.checkpoint.writers import write_all; "
        "from tests.pipeline.checkpoint.test_writers import tasks; "
        "write_all(tasks(Path(sys.argv[1]), 'hang', 'hang'), lambda *_: None, 2)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) as parent:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.kill()
    writers = [child for child in children if child.is_running()]
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in writers))


def test_little_work_is_done_by_one_process_and_much_by_no_more_than_there_are_cores(tmp_path: Path):
    page = [Pages(tmp_path / str(number)) for number in range(64)]
    assert processes(page) == 1
    much = [Pages(tmp_path / str(number), pages=BYTES_PER_PROCESS // 4096) for number in range(64)]
    assert 1 <= processes(much) <= len(os.sched_getaffinity(0))
    assert processes(much[:1]) == 1
