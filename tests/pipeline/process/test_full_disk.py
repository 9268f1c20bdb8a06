"""A child that fails on a full disk: which one is full is said, whoever started the child."""

from pathlib import Path

import pytest

from artifacts.errors import StoreUnusable
from pipeline.engines.aoti.group import Ranks
from pipeline.errors import BuildFailed
from pipeline.process.full_disk import explain_failure
from tests.disks import fill, mounted

FAILED = BuildFailed(
    "rank 0 failed:\n  log: /a/log\n  | Traceback\n  | File x, line 3\n  | mz_zip error: write callback failed"
)


def test_a_failure_of_another_kind_stays_what_it_is(tmp_path: Path):
    assert explain_failure(FAILED, "rank 0", store=tmp_path) is FAILED


@pytest.mark.slow
def test_a_full_disk_of_temporary_files_is_named_though_python_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with mounted(tmp_path / "disk", "1m") as disk:
        fill(disk / "ballast")
        monkeypatch.setenv("TMPDIR", str(disk))
        found = explain_failure(FAILED, "rank 0", store=tmp_path)
        assert isinstance(found, StoreUnusable)
        first, *rest = str(found).splitlines()
        assert first == (
            f"disk full: rank 0 cannot be written: 0 bytes are free at {disk}, on the disk mounted at {disk};"
            " free space there, or set $TMPDIR to a directory with room"
        )
        assert rest == ["rank 0 failed:", "  log: /a/log", "  | mz_zip error: write callback failed"]


def test_what_ran_out_of_room_that_is_free_again_is_said_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    said = str(explain_failure(BuildFailed("| OSError: No space left on device"), "rank 0"))
    assert said.startswith("disk full: rank 0 ran out of room; bytes that are free now that it has ended: ")
    assert f" at {tmp_path}; free space there, or set $TMPDIR\n" in said


@pytest.mark.slow
def test_ranks_that_cannot_load_say_that_the_disk_of_temporary_files_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with mounted(tmp_path / "disk", "1m") as disk:
        fill(disk / "ballast")
        monkeypatch.setenv("TMPDIR", str(disk))
        said = rf"^disk full: rank 0 of 1 of the engine cannot be written: 0 bytes are free at {disk}, "
        with pytest.raises(StoreUnusable, match=said), Ranks(tmp_path / "no engine", 1):
            pytest.fail("loaded")
