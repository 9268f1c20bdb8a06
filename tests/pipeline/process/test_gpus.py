"""The table of GPU types."""

import pytest

from pipeline.process.gpus import TARGETS


@pytest.mark.parametrize(
    ("name", "sm", "mib", "nvlink"),
    [
        ("a100", 80, 81920, True),
        ("a10", 86, 23028, False),
        ("l4", 89, 23034, False),
        ("l40s", 89, 46068, False),
        ("h100", 90, 81559, True),
        ("h200", 90, 143771, True),
        ("b200", 100, 183359, True),
    ],
)
def test_names_that_recipes_use_already_keep_their_meaning(name: str, sm: int, mib: int, nvlink: bool):
    found = TARGETS[name]
    assert (found.sm, found.memory_bytes, found.nvlink) == (sm, mib << 20, nvlink)


def test_a_name_with_a_size_is_the_gpu_of_that_size():
    assert TARGETS["a100-80g"] == TARGETS["a100"]
    assert 2 * TARGETS["a100-40g"].memory_bytes == TARGETS["a100"].memory_bytes
    assert TARGETS["h100-pcie"].memory_bytes == TARGETS["h100"].memory_bytes


@pytest.mark.parametrize("name", TARGETS)
def test_every_gpu_has_the_memory_of_a_data_centre_card_and_a_bandwidth_that_matches(name: str):
    found = TARGETS[name]
    assert 22 << 30 < found.memory_bytes < 192 << 30
    seconds_to_read_all = found.memory_bytes / (found.bandwidth_gb_per_s * 1e9)
    assert 0.01 < seconds_to_read_all < 0.1
