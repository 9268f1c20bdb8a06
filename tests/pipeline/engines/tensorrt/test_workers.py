"""How many ranks are built at once: bounded by GPUs, their memory and the host's."""

import pytest

from pipeline.engines.tensorrt.workers import workers

GIB = 1 << 30
RANK = 10 * GIB


@pytest.mark.parametrize(
    ("ranks", "gpus", "gpu_gib", "host_gib", "count", "why"),
    [
        (1, 8, 80, 16, 1, "one rank"),
        (4, 4, 80, 512, 4, "every rank on a GPU of its own"),
        (4, 2, 80, 512, 2, "2 GPUs for 4 ranks"),
        (4, 2, 40, 512, 1, "2 GPUs for 4 ranks, and two ranks do not fit on one GPU"),
        (4, 4, 80, 60, 2, "host memory: 60 GiB free, about 27 GiB for each rank"),
        (4, 4, 80, 10, 1, "host memory: 10 GiB free, about 27 GiB for each rank"),
        (2, 1, 24, 512, 1, "1 GPU for 2 ranks"),
    ],
)
def test_the_scarcest_of_gpus_and_memory_decides(
    ranks: int, gpus: int, gpu_gib: int, host_gib: int, count: int, why: str
) -> None:
    found = workers([RANK] * ranks, gpus, gpu_gib * GIB, host_gib * GIB)
    assert (found.count, found.why) == (count, why)


def test_the_largest_rank_counts() -> None:
    assert workers([1, 40 * GIB], 2, 80 * GIB, 100 * GIB).count == 1
