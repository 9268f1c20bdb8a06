"""The KV cache's types: as computed, or eight bits with one scale per layer."""

import torch
from torch import Tensor

from pipeline.engines.aoti import e4m3

EIGHT_BITS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
"""Stored type of each recipe word; `auto` has the compute dtype."""


def cache_dtype(kv_cache: str, dtype: torch.dtype) -> torch.dtype:
    """Returns the type that keys and values are stored in."""
    return EIGHT_BITS.get(kv_cache, dtype)


def stored(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds values to the cache's type, in units of `scale`; values beyond its range are clamped."""
    units = x.float() / scale
    if dtype == torch.int8:
        return units.round().clamp(-128, 127).to(torch.int8)
    return units.clamp(-e4m3.MAX, e4m3.MAX).to(torch.float8_e4m3fn)


def units(cache: Tensor) -> Tensor:
    """Returns stored values as float32, in units of the scale where there is one; for fused sums.

    e4m3 is widened once, into memory: inside the sums, every query head would widen it again, one value at a
    time (1.2 times the time of a bfloat16 cache against 1.6, at 256 positions).
    """
    if cache.dtype != torch.float8_e4m3fn:
        return cache.float()
    return e4m3.realized(e4m3.widened(cache).contiguous())


def values(cache: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns stored values in the compute dtype; the library kernel reads nothing else."""
    return (cache.float() * scale).to(dtype)
