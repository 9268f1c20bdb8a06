"""What a compiled stage is called with: limits, cache and the names of its graphs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.kv_cache import cache_dtype

GRAPHS = ("many", "single")
"""Compiled functions of a package: any batch and time, and one token of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes that an engine is built for."""

    max_batch_size: int
    max_seq_len: int

    @property
    def capacity(self) -> int:
        """Positions of the cache: one more than a request can fill, so that padding has somewhere to go."""
        return self.max_seq_len + 1


def new_caches(arch: Arch, dtype: torch.dtype, batch: int, capacity: int) -> list[Tensor]:
    """Returns a rank's empty KV cache: K and V of every layer of the stage, (batch, S, heads, head size)."""
    shape = (batch, capacity, arch.rank_kv_heads, arch.head_size)
    cached = cache_dtype(arch.kv_cache, dtype)
    return [torch.zeros(shape, dtype=cached) for _ in range(2 * arch.stage_layers)]


def cache_bytes(arch: Arch, dtype: torch.dtype, limits: Limits) -> int:
    """Bytes of a rank's KV cache."""
    per_token = arch.kv_bytes_per_token(cache_dtype(arch.kv_cache, dtype).itemsize)
    return limits.max_batch_size * limits.capacity * per_token
