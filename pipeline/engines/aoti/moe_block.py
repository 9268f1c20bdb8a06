"""A mixture of experts with static shapes, whatever the routing, so that torch.export can follow it.

Shapes: N tokens, H hidden size, E experts of the rank, K experts of a token, I inner channels of the rank,
O outputs of a stack. As linear layers have, a stack has two ways to multiply. `many` sends all tokens through
some experts, most of whose outputs then count nothing: no routing decides a shape, and a library multiplies.
`one` reads only the weights of one token's K experts.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from torch import Tensor, nn

from pipeline.engines.aoti import e4m3
from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.blocks import linear_of, rank_sum
from pipeline.engines.aoti.linear import Linear, parameter
from pipeline.engines.aoti.quantization import LinearFormat

AT_ONCE = 8
"""Experts that are multiplied together: fewer make more code, more hold the inner channels of more."""


class Stack(nn.Module):
    """One linear of every expert of a rank, [E, O, I], in the compute dtype."""

    def __init__(self, experts: int, num_in: int, num_out: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.sizes = dtype, (experts, num_out, num_in)
        self.weight = parameter(self.sizes, dtype)

    def many(self, x: Tensor, experts: slice) -> Tensor:
        """Multiplies all tokens, (N, I) or each expert's own (e, N, I), by e experts: (e, N, O) float32."""
        return torch.matmul(x, self.weight[experts].transpose(1, 2)).float()

    def one(self, x: Tensor, experts: Tensor) -> Tensor:
        """Multiplies one token, (I,) or each expert's own (K, I), by experts (K,): (K, O) float32."""
        return _dot(x, self.weight[experts].float())


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    return (x.float().unsqueeze(-2) * weight).sum(-1)


class Int8Stack(Stack):
    """Weights int8 with one scale per output channel of each expert."""

    def __init__(self, experts: int, num_in: int, num_out: int, dtype: torch.dtype) -> None:
        super().__init__(experts, num_in, num_out, dtype)
        self.weight = parameter(self.sizes, torch.int8)
        self.weights_scaling_factor = parameter((experts, num_out), torch.float32)

    def many(self, x: Tensor, experts: slice) -> Tensor:
        """Multiplies all tokens; every int8 value is exact in bfloat16."""
        sums = torch.matmul(x, self.weight[experts].to(x.dtype).transpose(1, 2)).float()
        return sums * self.weights_scaling_factor[experts].unsqueeze(1)

    def one(self, x: Tensor, experts: Tensor) -> Tensor:
        """Multiplies one token."""
        return _dot(x, self.weight[experts].float()) * self.weights_scaling_factor[experts]


class Float8Stack(Stack):
    """Weights e4m3 with one scale per expert; inputs e4m3 with one static scale for all experts."""

    def __init__(self, experts: int, num_in: int, num_out: int, dtype: torch.dtype) -> None:
        super().__init__(experts, num_in, num_out, dtype)
        self.weight = parameter(self.sizes, torch.float8_e4m3fn)
        self.weights_scaling_factor = parameter((experts, 1), torch.float32)
        self.activation_scaling_factor = parameter((1,), torch.float32)

    def _rounded(self, x: Tensor) -> Tensor:
        return e4m3.rounded(x.float() / self.activation_scaling_factor)

    def many(self, x: Tensor, experts: slice) -> Tensor:
        """Multiplies all tokens; every e4m3 value is exact in bfloat16."""
        # Two conversions, for the reason that `linear.Float8.matmul` gives.
        weight = self.weight[experts].float().to(x.dtype)
        sums = torch.matmul(self._rounded(x).to(x.dtype), weight.transpose(1, 2)).float()
        scale = self.weights_scaling_factor[experts] * self.activation_scaling_factor
        return sums * scale.unsqueeze(1)

    def one(self, x: Tensor, experts: Tensor) -> Tensor:
        """Multiplies one token."""
        # Indexed as bytes: torch indexes no float8 on a CPU.
        weight = e4m3.widened(self.weight.view(torch.int8)[experts])
        scale = self.weights_scaling_factor[experts] * self.activation_scaling_factor
        return _dot(e4m3.realized(self._rounded(x)), weight) * scale


class Int4Stack(Stack):
    """Weights int4 in blocks of input channels, two output channels per byte, as `Int4Block` has them."""

    def __init__(self, experts: int, num_in: int, num_out: int, dtype: torch.dtype, group_size: int) -> None:
        super().__init__(experts, num_in, num_out, dtype)
        self.group_size = group_size
        self.weight = parameter((experts, num_out // 2, num_in), torch.uint8)
        self.weights_scaling_factor = parameter((experts, num_out, num_in // group_size), torch.float32)

    def _halves(self, packed: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled weights (e, O/2, G, block) of the even and of the odd output channels, float32."""
        blocks = torch.unflatten(packed, -1, (-1, self.group_size)).float()
        high = torch.floor(blocks * 0.0625)
        low, wide = blocks - 16 * high, scale.unsqueeze(-1)
        return (low - 8) * wide[:, 0::2], (high - 8) * wide[:, 1::2]

    def many(self, x: Tensor, experts: slice) -> Tensor:
        """Multiplies all tokens."""
        halves = self._halves(self.weight[experts], self.weights_scaling_factor[experts])
        even, odd = (half.flatten(-2).to(x.dtype) for half in halves)
        weight = torch.stack([even, odd], 2).flatten(1, 2)
        return torch.matmul(x, weight.transpose(1, 2)).float()

    def one(self, x: Tensor, experts: Tensor) -> Tensor:
        """Multiplies one token."""
        blocks = torch.unflatten(x.float(), -1, (-1, self.group_size)).unsqueeze(-3)
        halves = self._halves(self.weight[experts], self.weights_scaling_factor[experts])
        even, odd = ((blocks * half).sum((-1, -2)) for half in halves)
        return torch.stack([even, odd], -1).flatten(-2)


STACKS: Mapping[str, type[Stack]] = {
    "none": Stack, "fp8": Float8Stack, "int8_wo": Int8Stack, "int4_wo": Int4Stack,
}  # fmt: skip
"""Stack of each format that experts can have."""


def stack_of(fmt: LinearFormat) -> Callable[..., Stack]:
    """Returns the constructor of a stack of that format."""
    constructor = STACKS[fmt.format]
    return (
        partial(constructor, group_size=fmt.group_size) if issubclass(constructor, Int4Stack) else constructor
    )


class Router(nn.Module):
    """Weighs experts, in float32: a rounded logit can choose another one."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        assert arch.experts is not None
        self.chosen, self.normalized = arch.experts.per_token, arch.experts.normalized
        self.weight = parameter((arch.experts.count, arch.hidden_size), torch.float32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses experts for tokens (N, H): their weights (N, K) float32, and their numbers (N, K)."""
        # All experts share the softmax, so those chosen add up to less than 1 until normalized.
        weights, experts = F.linear(x.float(), self.weight).softmax(-1).topk(self.chosen, -1)
        return weights / weights.sum(-1, keepdim=True) if self.normalized else weights, experts


class SharedExpert(nn.Module):
    """The expert that every token is sent to; `fc` holds up and then gate projection."""

    def __init__(self, arch: Arch, dtype: torch.dtype, formats: Mapping[str, LinearFormat]) -> None:
        super().__init__()
        assert arch.experts is not None
        inner = arch.experts.shared_intermediate_size // arch.tp
        fc, proj = (linear_of(formats[f"mlp.shared_expert.{name}"]) for name in ("fc", "proj"))
        self.fc = fc(arch.hidden_size, 2 * inner, dtype)
        self.proj = proj(inner, arch.hidden_size, dtype)

    def forward(self, x: Tensor, *, single: bool) -> Tensor:
        """Applies the expert: (B, T, H) -> (B, T, H), this rank's part of the sum."""
        up, gate = self.fc(x, single=single).chunk(2, -1)
        out: Tensor = self.proj(F.silu(gate) * up, single=single)
        return out


class Moe(nn.Module):
    """Router, the rank's experts, and where the model has one, the shared expert behind its gate."""

    def __init__(self, arch: Arch, dtype: torch.dtype, formats: Mapping[str, LinearFormat]) -> None:
        super().__init__()
        assert arch.experts is not None
        self.tp, self.held = arch.tp, arch.experts.count // arch.ep
        # Ranks that hold the same experts, tp / ep of them, split the inner channels.
        inner = arch.experts.intermediate_size // (arch.tp // arch.ep)
        fc, proj = (stack_of(formats[name]) for name in ("mlp.fc", "mlp.proj"))
        self.router = Router(arch)
        self.fc = fc(self.held, arch.hidden_size, 2 * inner, dtype)
        self.proj = proj(self.held, inner, arch.hidden_size, dtype)
        # Where a rank's experts start is data, so that ranks share code.
        start = torch.empty((), dtype=torch.int64, device="meta")
        self.register_buffer("start", start if arch.ep > 1 else None)
        self.shared_expert = self.shared_expert_gate = None
        if arch.experts.shared_intermediate_size:
            self.shared_expert = SharedExpert(arch, dtype, formats)
            self.shared_expert_gate = Linear(arch.hidden_size, 1, dtype)

    def forward(self, x: Tensor, *, single: bool) -> Tensor:
        """Applies the experts: (B, T, H) -> (B, T, H)."""
        tokens = x.flatten(0, -2)
        weights, experts = self.router(tokens)
        out = self._one(tokens, weights, experts) if single else self._many(tokens, weights, experts)
        out = out.to(x.dtype).view(x.shape)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            out = out + torch.sigmoid(self.shared_expert_gate(x, single=single)) * self.shared_expert(
                x, single=single
            )
        # The shared expert is split over the ranks as well, so one sum serves both.
        return rank_sum(out, self.tp)

    def _many(self, tokens: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Sends all tokens through all experts of the rank, and weighs what comes out: (N, H) float32."""
        numbers = torch.arange(self.held, device=tokens.device)
        if self.start is not None:
            numbers = numbers + cast("Tensor", self.start)
        # (N, E): what each expert of the rank counts for a token, 0 where it was not chosen.
        share = ((experts.unsqueeze(-1) == numbers) * weights.unsqueeze(-1)).sum(-2)
        total = torch.zeros(tokens.shape, device=tokens.device)
        for first in range(0, self.held, AT_ONCE):
            some = slice(first, min(first + AT_ONCE, self.held))
            up, gate = self.fc.many(tokens, some).to(tokens.dtype).chunk(2, -1)
            out = self.proj.many(F.silu(gate) * up, some)
            total = total + (out * share[:, some].t().unsqueeze(-1)).sum(0)
        return total

    def _one(self, tokens: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Sends the one token through its experts, those of other ranks with no weight: (1, H) float32."""
        share, chosen = weights[0], experts[0]
        if self.start is not None:
            chosen = chosen - cast("Tensor", self.start)
            on_rank = (chosen >= 0) & (chosen < self.held)
            # Other ranks' experts become the first one here, with no weight: shapes stay static.
            share, chosen = share * on_rank, torch.where(on_rank, chosen, 0)
        up, gate = self.fc.one(tokens[0], chosen).to(tokens.dtype).chunk(2, -1)
        out = self.proj.one(F.silu(gate) * up, chosen)
        return (out * share.unsqueeze(-1)).sum(0, keepdim=True)
