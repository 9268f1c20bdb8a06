"""One rank of a running engine: loads its stage and its weights, and answers calls."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._aoti import AOTIModelPackageLoader
from torch.distributed.distributed_c10d import PrefixStore, Store

from pipeline.engines.aoti.arch import Arch, read_arch
from pipeline.engines.aoti.sizes import GRAPHS, Limits, new_caches
from pipeline.engines.aoti.weights import bind
from pipeline.errors import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank stands."""

    rank: int
    arch: Arch

    @property
    def stage(self) -> int:
        """Pipeline stage."""
        return self.rank // self.arch.tp

    @property
    def first(self) -> bool:
        """Takes tokens."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Gives logits."""
        return self.stage == self.arch.pp - 1

    @property
    def leads(self) -> bool:
        """Answers for all ranks: the first of the last stage."""
        return self.rank == self.arch.tp * (self.arch.pp - 1)


class Pipe:
    """Passes tensors between pipeline stages."""

    def __init__(self, place: Place, store: Store) -> None:
        arch = place.arch
        self.rank, self.tp, self.leader = place.rank, arch.tp, arch.tp * (arch.pp - 1)
        # Names of its own: the groups of the stages meet in the same store.
        own = PrefixStore("pipe", store)
        # A stage waits as long as those before it compute; `group.Ranks` notices the rank that died.
        self.group: Any = dist.ProcessGroupGloo(own, place.rank, arch.world_size, timedelta(days=1))

    def receive(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Waits for hidden states from the same rank of the stage before."""
        x = torch.empty(shape, dtype=dtype)
        self.group.recv([x], self.rank - self.tp, 0).wait()
        return x

    def send(self, x: Tensor) -> None:
        """Hands hidden states to the same rank of the next stage."""
        self.group.send([x.contiguous()], self.rank + self.tp, 0).wait()

    def share(self, x: Tensor) -> None:
        """Overwrites `x` on every rank with the leader's."""
        self.group.broadcast(x, self.leader).wait()


class Rank:
    """The compiled stage of one rank with its weights and KV cache."""

    def __init__(self, directory: Path, rank: int, store: Store | None) -> None:
        about = json.loads((directory / "engine.json").read_text())
        arch = read_arch(directory)
        self.place = Place(rank=rank, arch=arch)
        self.limits = Limits(max_batch_size=about["max_batch_size"], max_seq_len=about["max_seq_len"])
        self.dtype = cast("torch.dtype", getattr(torch, about["dtype"]))
        # Else every rank would use all cores of the host.
        torch.set_num_threads(about["threads_per_rank"])
        if arch.tp > 1:
            assert store is not None
            own = PrefixStore(f"stage{self.place.stage}", store)
            # The first group of the process: compiled code knows it by the name in `blocks.GROUP`.
            dist.init_process_group("gloo", store=own, rank=rank % arch.tp, world_size=arch.tp)
        self.pipe = Pipe(self.place, store) if store is not None and arch.pp > 1 else None
        tensors = bind(directory, arch, rank, self.dtype, self.limits.capacity)
        package = directory / about["stages"][self.place.stage]
        self.graphs = {name: Graph(package, name, tensors) for name in GRAPHS}
        self.tensors = tensors  # the compiled code points at their memory
        self.counting = torch.arange(self.limits.capacity)
        self.caches = new_caches(arch, self.dtype, self.limits.max_batch_size, self.limits.capacity)

    @torch.inference_mode()
    def step(self, tokens: Tensor, positions: Tensor, rows: Tensor) -> Tensor | None:
        """Runs new tokens (B, T) at their positions through this stage; gives logits (N, V) on the last.

        A position of `max_seq_len` marks padding: it is written where no request looks.
        """
        # Every rank sees the tokens; later stages use their shape only.
        x = tokens
        if not self.place.first:
            assert self.pipe is not None
            x = self.pipe.receive((*tokens.shape, self.place.arch.hidden_size), self.dtype)
        # `single` has the shape (1, 1) alone; one token each of two requests is `many` already.
        graph = self.graphs["single" if tokens.numel() == 1 else "many"]
        # Request b is row b of the cache: a smaller batch takes the first rows.
        caches = [cache[: len(tokens)] for cache in self.caches]
        out: Tensor = graph(x, positions, self._window(positions), rows, caches)
        if self.place.last:
            return out
        assert self.pipe is not None
        self.pipe.send(out)
        return None

    def _window(self, positions: Tensor) -> Tensor:
        """Returns the cached positions that any of the tokens sees: 0 .. S-1."""
        # The position of padding would stretch the window to the whole cache.
        real = torch.where(positions < self.limits.max_seq_len, positions, 0)
        return self.counting[: int(real.max()) + 1]

    def share(self, x: Tensor) -> Tensor:
        """Returns the leader's `x`; ranks of the last stage have computed the same."""
        if self.pipe is not None:
            self.pipe.share(x)
        return x


LOADING = (False, 1, -1)
"""Not single-threaded, one runner, no device index: positions that torch does not name."""


class Graph:
    """Compiled code, pointed at the rank's tensors."""

    def __init__(self, package: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
        # torch's own wrapper parses a tree specification at every call, and takes a second to import.
        self.loader = AOTIModelPackageLoader(str(package), name, *LOADING)
        names = self.loader.get_constant_fqns()
        if missing := [fqn for fqn in names if fqn not in tensors]:
            raise SourceError(
                f"{package.parent}: tensors {missing} are missing; convert the checkpoint again"
            )
        # The rank may hold tensors that this graph does not read.
        constants = {fqn: tensors[fqn] for fqn in names}
        # `user_managed`: both graphs read the rank's own tensors in place, and copy none.
        use_inactive, check_full_update, user_managed = False, True, True
        self.loader.load_constants(constants, use_inactive, check_full_update, user_managed)

    def __call__(
        self, x: Tensor, positions: Tensor, window: Tensor, rows: Tensor, caches: list[Tensor]
    ) -> Tensor:
        """Runs the stage; see `model.Stage.forward`."""
        out: Tensor = self.loader.boxed_run([x, positions, window, rows, *caches])[0]
        return out
