"""Every rank of a sharded checkpoint in plain torch, uncompiled: a thread per tensor-parallel rank."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.testing._internal.distributed.multi_threaded_pg import _install_threaded_pg, _uninstall_threaded_pg

from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.decoder import Stage
from pipeline.engines.aoti.sizes import Limits, new_caches
from pipeline.engines.aoti.weights import bind

LIMITS = Limits(max_batch_size=3, max_seq_len=32)


class Ranks:
    """The stage modules of every rank, with their caches for one batch."""

    def __init__(self, directory: Path, batch: int) -> None:
        self.arch, self.directory = read_arch(directory), directory
        self.caches = [
            new_caches(self.arch, torch.float32, batch, LIMITS.capacity) for _ in range(self.arch.world_size)
        ]
        self.stages = {single: [self._stage(rank, single) for rank in range(self.arch.world_size)]
                       for single in (False, True)}  # fmt: skip

    def _stage(self, rank: int, single: bool) -> Stage:
        module = Stage(self.arch, torch.float32, rank // self.arch.tp, LIMITS.capacity, single=single)
        tensors = bind(self.directory, self.arch, rank, torch.float32, LIMITS.capacity)
        module.load_state_dict({name: tensors[name] for name in module.state_dict()}, assign=True)
        return module

    def logits(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Logits (B, T, V) of tokens (B, T) at positions from `start`; all ranks of the last stage agree."""
        single, (batch, time) = tokens.numel() == 1, tokens.shape
        positions = torch.arange(start, start + time).repeat(batch, 1)
        x = [tokens] * self.arch.tp

        def step(rank: int) -> torch.Tensor:
            with torch.no_grad():
                return self.stages[single][rank](
                    x[rank % self.arch.tp], positions, torch.arange(start + time),
                    torch.arange(batch * time), self.caches[rank],
                )  # fmt: skip

        for stage in range(self.arch.pp):
            x = together(step, range(stage * self.arch.tp, (stage + 1) * self.arch.tp))
        assert all(torch.equal(other, x[0]) for other in x)
        return x[0].unflatten(0, (batch, time))


def together(step: Callable[[int], torch.Tensor], ranks: range) -> list[torch.Tensor]:
    """Runs a step on ranks that exchange tensors."""
    if len(ranks) == 1:
        return [step(ranks[0])]
    distributed: Any = torch._C._distributed_c10d  # its stub lacks the mode
    _install_threaded_pg()
    distributed._set_thread_isolation_mode(True)
    store = HashStore()

    def run(rank: int) -> torch.Tensor:
        dist.init_process_group("threaded", rank=rank - ranks[0], world_size=len(ranks), store=store)
        try:
            return step(rank)
        finally:
            dist.destroy_process_group()

    try:
        with ThreadPoolExecutor(len(ranks)) as pool:
            return list(pool.map(run, ranks))
    finally:
        distributed._set_thread_isolation_mode(False)
        _uninstall_threaded_pg()
