"""How many ranks of an engine are built at once; pure.

`trtllm-build --workers n` gives rank r to GPU r mod n, whichever worker is free. With fewer workers than
ranks two ranks can so meet on one GPU, where each sees less free memory and skips kernels. So ranks are built
all at once, or as many as GPUs where two fit on one, or one after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

HOST_BASE_BYTES = 7 << 30
HOST_FACTOR = 2.0
"""Host memory of one rank's build: a base and a multiple of its weights. Public build logs of 0.20 and 1.0
say 7.0 GB with 0.3 GB of weights, 5.8 GB with 1.5 GB, 18.1 GB with 8.1 GB; the estimate is above each of
them."""

GPU_FACTOR = 2.5
"""GPU memory of one rank's build as a multiple of its weights: the weights, a copy, and room for tactics."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Ranks built at once, and why not more."""

    count: int
    why: str


def workers(rank_bytes: Sequence[int], gpus: int, gpu_bytes: int, host_bytes: int) -> Workers:
    """Ranks to build at once, given the weights of each rank and what is free of each GPU and of the host."""
    ranks, largest = len(rank_bytes), max(rank_bytes)
    each = HOST_BASE_BYTES + round(HOST_FACTOR * largest)
    # One rank is tried however little memory is free: the estimate is above what logs say.
    by_host = max(1, host_bytes // each)
    if ranks == 1:
        return Workers(1, "one rank")
    if min(gpus, by_host) >= ranks:
        return Workers(ranks, "every rank on a GPU of its own")
    count = min(gpus, by_host)
    limit = (
        f"{gpus} GPU{'s' if gpus > 1 else ''} for {ranks} ranks"
        if gpus <= by_host
        else f"host memory: {host_bytes >> 30} GiB free, about {each >> 30} GiB for each rank"
    )
    # With fewer workers than ranks, two ranks may meet on a GPU.
    if count > 1 and 2 * GPU_FACTOR * largest > gpu_bytes:
        return Workers(1, f"{limit}, and two ranks do not fit on one GPU")
    return Workers(count, limit)
