"""A timing cache goes to builds of the same key, and to no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.tensorrt.timing_cache import CACHE, COPY, KEY, bring, finish, key_of
from pipeline.trtllm.gpus_idle import Device

DEVICE = Device(
    index=0, uuid="GPU-0", name="NVIDIA H100 80GB HBM3", sm=90, memory_bytes=80 << 30, used_bytes=0,
    driver="550.54.15",
)  # fmt: skip
VERSIONS = {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0"}
THIS = key_of(DEVICE, VERSIONS, {"max_batch_size": 4})


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    directory = tmp_path / "earlier"
    directory.mkdir()
    (directory / CACHE).write_bytes(b"times")
    finish(directory, THIS)
    return directory


def test_a_cache_of_the_same_key_is_copied(earlier: Path, tmp_path: Path) -> None:
    assert bring(earlier, tmp_path / "tuning", THIS).used
    assert (tmp_path / "tuning" / CACHE).read_bytes() == b"times"


def test_the_copy_for_ranks_built_at_once_is_gone_afterwards(earlier: Path, tmp_path: Path) -> None:
    bring(earlier, tmp_path / "tuning", THIS)
    assert (tmp_path / "tuning" / COPY).read_bytes() == b"times"
    finish(tmp_path / "tuning", THIS)
    assert {file.name for file in (tmp_path / "tuning").iterdir()} == {CACHE, KEY}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (THIS | {"gpu": "NVIDIA H200"}, "gpu 'NVIDIA H100 80GB HBM3', now 'NVIDIA H200'"),
        (THIS | {"tensorrt": "10.8.0", "sm": 100}, "sm 90, now 100; tensorrt '10.7.0', now '10.8.0'"),
        (key_of(DEVICE, VERSIONS, {"max_batch_size": 8}), "built "),
    ],
)
def test_a_cache_of_another_key_is_refused_with_what_differs(
    earlier: Path, tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    reuse = bring(earlier, tmp_path / "tuning", other)
    assert not reuse.used
    assert told in reuse.reason
    assert not (tmp_path / "tuning" / CACHE).exists()


def test_a_damaged_cache_is_refused(earlier: Path, tmp_path: Path) -> None:
    (earlier / CACHE).write_bytes(b"tim")
    assert bring(earlier, tmp_path / "tuning", THIS).reason == "its bytes are not those that were kept"


def test_a_cache_that_does_not_say_what_it_is_for_is_refused(earlier: Path, tmp_path: Path) -> None:
    (earlier / KEY).unlink()
    assert bring(earlier, tmp_path / "tuning", THIS).reason == "timing.json is missing beside it"


def test_without_an_earlier_build_there_is_none(tmp_path: Path) -> None:
    assert "no earlier build" in bring(None, tmp_path / "tuning", THIS).reason
    assert "no earlier build" in bring(tmp_path / "none", tmp_path / "tuning", THIS).reason


def test_a_build_without_a_cache_describes_none(tmp_path: Path) -> None:
    finish(tmp_path, THIS)
    assert list(tmp_path.iterdir()) == []


def test_the_key_says_gpu_driver_versions_and_what_is_built(earlier: Path) -> None:
    stated = json.loads((earlier / KEY).read_text())
    assert stated.keys() == {"gpu", "sm", "driver", "tensorrt", "tensorrt_llm", "built", "sha256"}
