"""What the modules of a stage share: linear layers by format, norms, and sums over ranks."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn
from torch.distributed.distributed_c10d import GroupName

from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.linear import (
    Float8,
    Float8Rowwise,
    Float8Smoothed,
    Int4Block,
    Int4Smoothed,
    Int8Smoothed,
    Int8WeightOnly,
    Linear,
    parameter,
)
from pipeline.engines.aoti.quantization import LinearFormat

GROUP = GroupName("0")
"""Name torch gives a process's first group: here the tensor-parallel ranks of one stage."""


CONSTRUCTORS: Mapping[str, type[Linear]] = {
    "none": Linear,
    "fp8": Float8,
    "fp8_rowwise": Float8Rowwise,
    "int8_sq": Int8Smoothed,
    "int8_wo": Int8WeightOnly,
    "int4_awq": Int4Smoothed,
    "w4a8_awq": Float8Smoothed,
    "int4_wo": Int4Block,
}
"""Linear layer of each format."""


def linear_of(fmt: LinearFormat) -> Callable[..., Linear]:
    """Returns the constructor of a linear layer of that format."""
    constructor = CONSTRUCTORS[fmt.format]
    return (
        partial(constructor, group_size=fmt.group_size) if issubclass(constructor, Int4Block) else constructor
    )


def rank_sum(x: Tensor, tp: int) -> Tensor:
    """Adds the partial results of the tensor-parallel ranks, in float32 and in the order of the ranks.

    Gathering first is faster than gloo's all-reduce for a decoded token's few kilobytes: 0.5 ms against
    1.1 ms for two ranks (`python -m tests.benchmarks.collectives`); and all ranks get the same bits.
    """
    if tp == 1:
        return x
    parts = collectives.all_gather_tensor(x.unsqueeze(0), 0, GROUP)
    return parts.float().sum(0).to(x.dtype)


class RmsNorm(nn.Module):
    """Root-mean-square normalization, computed in float32."""

    def __init__(self, arch: Arch, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.epsilon, self.round_last = arch.norm_epsilon, arch.norms_round_last
        self.weight = parameter((size,), dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the last axis."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        # Which of the two products is rounded is a part of the model: the other one gives other bits.
        if self.round_last:
            return (self.weight.float() * wide).to(x.dtype)
        return self.weight * wide.to(x.dtype)
