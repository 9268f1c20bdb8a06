"""Adding what two ranks hold over gloo: all-reduce against gathering and adding, for one token's hidden state."""

import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._C._distributed_c10d import FileStore, ProcessGroupGloo
from torch.multiprocessing.spawn import spawn

SIZES = (256, 4096)
CALLS, ROUNDS = 50, 8


def main() -> None:
    """Prints medians of alternating rounds."""
    print("| elements | all-reduce, us | gather and add, us | ratio |\n| --- | --- | --- | --- |", flush=True)
    with TemporaryDirectory() as scratch:
        spawn(_rank, args=(str(Path(scratch) / "meeting"),), nprocs=2)


def _rank(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    # torch's stubs lack its collectives
    group: Any = ProcessGroupGloo(FileStore(meeting, 2), rank, 2, timedelta(minutes=2))
    for size in SIZES:
        x = torch.randn(1, size)
        parts = [torch.empty_like(x) for _ in range(2)]

        def reduce(x: torch.Tensor = x) -> None:
            group.allreduce(x).wait()

        def gather(x: torch.Tensor = x, parts: list[torch.Tensor] = parts) -> None:
            group.allgather([parts], [x]).wait()
            torch.stack(parts).sum(0)

        reduced, gathered = [], []
        for _ in range(ROUNDS):
            reduced.append(_seconds(reduce))
            gathered.append(_seconds(gather))
        a, b = (1e6 * statistics.median(found) for found in (reduced, gathered))
        if rank == 0:
            print(f"| {size} | {a:.0f} | {b:.0f} | {a / b:.1f} |", flush=True)
    os._exit(0)  # gloo's threads do not end with the interpreter


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS


if __name__ == "__main__":
    main()
