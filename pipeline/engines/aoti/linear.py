"""Linear layers whose weights stay quantized in memory.

Shapes: O output channels, I input channels, N tokens, G blocks of input channels that share a scale.
Every layer has two ways to multiply. `matmul` is for many tokens: the weight is turned into the compute
dtype once and a library multiplies. `dot` is for one token: a product and a sum that the compiler fuses
with the dequantization into one pass over the stored bytes, so that nothing but those bytes is read.
"""

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from torch import Tensor, nn

from pipeline.engines.aoti import e4m3


def parameter(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    """Returns a placeholder of one weight, to be assigned when weights are bound."""
    return nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=False)


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """Multiplies one token by a weight with float32 sums: (..., I), (O, I) -> (..., O)."""
    return (x.float().unsqueeze(-2) * weight.float()).sum(-1)


class Linear(nn.Module):
    """Weight in the compute dtype."""

    ways: tuple[str, ...] = ("dot", "matmul")
    """Ways to multiply one token."""
    way = "dot"
    """How one token is multiplied; the faster one unless tuning finds otherwise."""

    def __init__(self, num_in: int, num_out: int, dtype: torch.dtype, *, bias: bool = False) -> None:
        super().__init__()
        self.dtype, self.num_in, self.num_out = dtype, num_in, num_out
        self.weight = parameter((num_out, num_in), dtype)
        self.bias = parameter((num_out,), dtype) if bias else None

    @property
    def key(self) -> str:
        """Names what decides the speed of the layer."""
        return f"{type(self).__name__} {self.num_in}x{self.num_out} {self.dtype}"

    def forward(self, x: Tensor, *, single: bool) -> Tensor:
        """Applies the layer: (..., I) -> (..., O); `single` says that there is one token."""
        y = self.dot(x) if single and self.way == "dot" else self.matmul(x)
        y = y.to(self.dtype)
        return y if self.bias is None else y + self.bias

    def dot(self, x: Tensor) -> Tensor:
        """Multiplies one token."""
        return _dot(x, self.weight)

    def matmul(self, x: Tensor) -> Tensor:
        """Multiplies many tokens."""
        return F.linear(x, self.weight)


class Int8WeightOnly(Linear):
    """Weight int8 with one scale per output channel."""

    def __init__(self, num_in: int, num_out: int, dtype: torch.dtype, *, bias: bool = False) -> None:
        super().__init__(num_in, num_out, dtype, bias=bias)
        self.weight = parameter((num_out, num_in), torch.int8)
        self.weights_scaling_factor = parameter((num_out,), torch.float32)

    def dot(self, x: Tensor) -> Tensor:
        """Multiplies one token."""
        return _dot(x, self.weight) * self.weights_scaling_factor

    def matmul(self, x: Tensor) -> Tensor:
        """Multiplies many tokens; every int8 value is exact in bfloat16."""
        return F.linear(x, self.weight.to(x.dtype)).float() * self.weights_scaling_factor


class Int8Smoothed(Int8WeightOnly):
    """Weight and input int8: the smoothed input is rounded with one static scale, sums are exact in int32."""

    # Its `dot` is the library's call too, so that there is nothing to choose.
    ways = ("dot",)

    def __init__(self, num_in: int, num_out: int, dtype: torch.dtype, *, bias: bool = False) -> None:
        super().__init__(num_in, num_out, dtype, bias=bias)
        self.activation_scaling_factor = parameter((1,), torch.float32)
        self.prequant_scaling_factor = parameter((num_in,), torch.float32)

    def dot(self, x: Tensor) -> Tensor:
        """Multiplies one token; the int8 library call is the fastest way for one token too (measured)."""
        # Twice, because torch._int_mm (2.13) returns garbage for one row unless its row stride is I,
        # and the compiler gives a single row any stride.
        rows = torch.cat([x.flatten(0, -2)] * 2)
        return self.matmul(rows)[:1].view(*x.shape[:-1], -1)

    def matmul(self, x: Tensor) -> Tensor:
        """Multiplies many tokens."""
        scaled = x.float() * self.prequant_scaling_factor / self.activation_scaling_factor
        rounded = scaled.round().clamp(-128, 127).to(torch.int8)
        sums = torch._int_mm(rounded.flatten(0, -2), self.weight.t())
        y: Tensor = sums.float() * (self.weights_scaling_factor * self.activation_scaling_factor)
        return y.view(*x.shape[:-1], -1)


class Float8(Linear):
    """Weight and input e4m3, one static scale each."""

    def __init__(self, num_in: int, num_out: int, dtype: torch.dtype, *, bias: bool = False) -> None:
        super().__init__(num_in, num_out, dtype, bias=bias)
        self.weight = parameter((num_out, num_in), torch.float8_e4m3fn)
        self._add_scales()

    def _add_scales(self) -> None:
        self.weights_scaling_factor = parameter((1,), torch.float32)
        self.activation_scaling_factor = parameter((1,), torch.float32)

    def _input_scale(self, x: Tensor) -> Tensor:
        """Scale of the inputs (..., I): [1], or (..., 1)."""
        return self.activation_scaling_factor

    def _weight_scale(self) -> Tensor:
        """Scale of the weight: [1] or [O]."""
        return self.weights_scaling_factor

    def _smoothed(self, x: Tensor) -> Tensor:
        return x.float()

    def dot(self, x: Tensor) -> Tensor:
        """Multiplies one token."""
        x, scale = self._smoothed(x), self._input_scale(x)
        # Stored once, else every output channel rounds the input again.
        rounded = e4m3.realized(e4m3.rounded(x / scale))
        sums = (rounded.unsqueeze(-2) * e4m3.widened(self.weight)).sum(-1)
        return sums * (self._weight_scale() * scale)

    def matmul(self, x: Tensor) -> Tensor:
        """Multiplies many tokens; every e4m3 value is exact in bfloat16."""
        smoothed, scale = self._smoothed(x), self._input_scale(x)
        # Two conversions: the direct one is not vectorized (seven times slower, measured).
        weight = self.weight.float().to(x.dtype)
        sums = F.linear(e4m3.rounded(smoothed / scale).to(x.dtype), weight).float()
        return sums * (self._weight_scale() * scale)


class Float8Rowwise(Float8):
    """Weight e4m3 with one scale per output channel; input e4m3 with one scale per token, found here."""

    def _add_scales(self) -> None:
        self.per_channel_scale = parameter((self.num_out,), torch.float32)

    def _input_scale(self, x: Tensor) -> Tensor:
        largest = x.float().abs().amax(-1, keepdim=True)
        # A token of zeros has no largest value to divide by.
        return torch.where(largest > 0, largest, 1.0) / e4m3.MAX

    def _weight_scale(self) -> Tensor:
        return self.per_channel_scale


class Float8Smoothed(Float8):
    """Weight int4 in blocks, rounded to e4m3 again under one scale; smoothed input e4m3, one static scale.

    Both factors of a product are e4m3 values. No CPU multiplies int4 by them, and rounding in a fused loop is
    14 times slower (measured), so `weights.bind` widens the nibbles to what they stand for, a byte each.
    """

    def _add_scales(self) -> None:
        self.weights_scaling_factor_2 = parameter((1,), torch.float32)
        self.activation_scaling_factor = parameter((1,), torch.float32)
        self.prequant_scaling_factor = parameter((self.num_in,), torch.float32)

    def _smoothed(self, x: Tensor) -> Tensor:
        return x.float() * self.prequant_scaling_factor

    def _weight_scale(self) -> Tensor:
        return self.weights_scaling_factor_2


class Int4Block(Linear):
    """Weight int4 in blocks of input channels.

    Two weights per byte along the output channels, the even channel in the low nibble. The stored nibbles
    are two's complement; `weights.bind` flips the sign bits, so that here a nibble is its value plus 8.
    """

    def __init__(
        self, num_in: int, num_out: int, dtype: torch.dtype, group_size: int, *, bias: bool = False
    ) -> None:
        super().__init__(num_in, num_out, dtype, bias=bias)
        self.group_size = group_size
        self.weight = parameter((num_out // 2, num_in), torch.uint8)
        self.weights_scaling_factor = parameter((num_out, num_in // group_size), torch.float32)

    def _halves(self) -> tuple[Tensor, Tensor]:
        """Scaled weights of the even and of the odd output channels: (O/2, G, block) float32 each."""
        # Float arithmetic, because the compiler's integer shifts are ten times slower (measured).
        packed = torch.unflatten(self.weight, -1, (-1, self.group_size)).float()
        high = torch.floor(packed * 0.0625)  # a shift by four bits; exact in float32
        low = packed - 16 * high
        scale = self.weights_scaling_factor.unsqueeze(-1)
        return (low - 8) * scale[0::2], (high - 8) * scale[1::2]

    def _prepared(self, x: Tensor) -> Tensor:
        """What is multiplied by the scaled weights."""
        return x

    def dot(self, x: Tensor) -> Tensor:
        """Multiplies one token."""
        blocks = torch.unflatten(self._prepared(x).float(), -1, (-1, self.group_size)).unsqueeze(-3)
        even, odd = ((blocks * half).sum((-1, -2)) for half in self._halves())
        # Back into the order of the output channels: even and odd ones in turn.
        return torch.stack([even, odd], -1).flatten(-2)

    def matmul(self, x: Tensor) -> Tensor:
        """Multiplies many tokens."""
        even, odd = (half.flatten(-2).to(x.dtype) for half in self._halves())
        return F.linear(self._prepared(x), torch.stack([even, odd], 1).flatten(0, 1))


class Int4Smoothed(Int4Block):
    """Weight int4 in blocks of input channels, input smoothed."""

    def __init__(
        self, num_in: int, num_out: int, dtype: torch.dtype, group_size: int, *, bias: bool = False
    ) -> None:
        super().__init__(num_in, num_out, dtype, group_size, bias=bias)
        self.prequant_scaling_factor = parameter((num_in,), torch.float32)

    def _prepared(self, x: Tensor) -> Tensor:
        return (x.float() * self.prequant_scaling_factor).to(x.dtype)
