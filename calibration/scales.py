"""Scales and quantized bytes of a linear's weight, from the source weight and ModelOpt's measurements.

Rounding, and where it follows ModelOpt 0.47 or departs from it on purpose:

fp8       The weight is divided and rounded once, in float32. ModelOpt's Hugging Face export divides a
          bfloat16 weight by a scalar, which keeps the quotient in bfloat16, and rounds again to e4m3.
          The linears of a fused group share one weight scale and one input scale (the maximum of their
          amax); ModelOpt's Hugging Face export leaves them different.
int8, int4  Bytes are ModelOpt's. Smoothed weights pass through the source dtype where its calibration
          stores them: once when the linear's own smoothing is applied, once more when the group's
          shared smoothing replaces it.
Zero weight channels and blocks get a scale of one, as in ModelOpt.
"""

# O: output channels   I: input channels   B: blocks along I

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from calibration.coverage import SOURCE
from calibration.errors import QuantizationIncomplete
from calibration.layout import Group
from recipes.formats import FORMATS, Format

FP8_E4M3_MAX = 448.0
"""Largest finite float8_e4m3fn value (OCP 8-bit floating point specification)."""
INT8_MAX = 127.0
INT4_MAX = 7.0
SMOOTHING_RANGE = (1e-4, 1e4)
"""ModelOpt's SmoothQuant keeps its scales within this range."""
MODELOPT_BITS = {"source": None, "float8_e4m3fn": (4, 3), "int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What calibration found out about one linear; absent values are None."""

    weight_amax: torch.Tensor | None = None
    """Largest weight magnitude, 0-d; for one scale per tensor."""
    input_amax: torch.Tensor | None = None
    """Largest (smoothed) input magnitude, 0-d."""
    smoothing: torch.Tensor | None = None
    """Factors [I] that inputs are multiplied by, float32."""
    shared: torch.Tensor | None = None
    """Factors [I] in the model's dtype, after the group agreed on them."""
    folded: bool = False
    """Whether the norm before the linear carries the factors."""


def found_format(linear: Any) -> str:
    """Name of the format that a linear's ModelOpt quantizers are set to, or what they are set to instead."""
    weights, inputs = linear.weight_quantizer, linear.input_quantizer
    found = (
        weights.num_bits if weights.is_enabled else None,
        _granularity(weights) if weights.is_enabled else ("none", 0),
        inputs.num_bits if inputs.is_enabled else None,
        inputs.pre_quant_scale is not None,
    )
    for fmt in FORMATS.values():
        bits = MODELOPT_BITS
        if found == (bits[fmt.weight], (fmt.granularity, fmt.block_size), bits[fmt.activation], fmt.smoothed):
            return SOURCE if fmt.weight == "source" else fmt.name
    return f"weights {found[0]} per {found[1]}, inputs {found[2]}, smoothed {found[3]}"


def _granularity(quantizer: Any) -> tuple[str, int]:
    """What one scale covers, and the block size or 0."""
    if quantizer.block_sizes:
        return "block", quantizer.block_sizes[-1]
    return ("tensor", 0) if quantizer.axis is None else ("channel", 0)


def measured(name: str, linear: Any, fmt: Format) -> Measured:
    """Copies a calibrated linear's measurements to the CPU."""
    inputs = linear.input_quantizer
    return Measured(
        weight_amax=_cpu(linear.weight_quantizer.amax) if fmt.granularity == "tensor" else None,
        input_amax=_cpu(inputs.amax) if fmt.activation != "source" else None,
        smoothing=_smoothing(name, linear) if fmt.smoothed else None,
        shared=_cpu(inputs.pre_quant_scale) if fmt.smoothed else None,
    )


def _cpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().cpu().clone()


def _smoothing(name: str, linear: Any) -> torch.Tensor:
    """Smoothing factors in float32, of which ModelOpt keeps only a copy rounded to the model's dtype.

    Raises QuantizationIncomplete when they do not round to that copy.
    """
    search = getattr(linear, "awq_lite", None)
    if search is None:
        amax_I = linear.input_quantizer._amax_for_smoothing.flatten().float()
        factors_I = (1.0 / amax_I).clamp(*SMOOTHING_RANGE)
    elif search.best_scale is None:
        raise QuantizationIncomplete(f"{name}: no calibration token reached it; give more varied data")
    else:
        factors_I = (1.0 / search.best_scale).float().cpu()
    kept_I = linear.input_quantizer.pre_quant_scale.cpu()
    if not torch.equal(factors_I.to(kept_I.dtype), kept_I):
        raise QuantizationIncomplete(
            f"{name}: its smoothing factors do not round to ModelOpt's own; this ModelOpt is not supported"
        )
    smoothing: torch.Tensor = factors_I
    return smoothing


def agreed(linears: Mapping[str, Measured], groups: Sequence[Group], fmt: Format) -> dict[str, Measured]:
    """Gives the linears of every fused group one amax each for weight and input, and one smoothing."""
    result = dict(linears)
    for group in groups:
        members = [linears[name] for name in group.linears]
        for name, member in zip(group.linears, members, strict=True):
            result[name] = replace(
                member,
                weight_amax=_max([m.weight_amax for m in members]),
                input_amax=_max([m.input_amax for m in members]),
                shared=_mean([m.shared for m in members]),
                folded=fmt.smoothed and fmt.granularity == "block",
            )
    return result


def _max(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present).max() if present else None


def _mean(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present).mean(dim=0) if present else None


def quantized(weight_OI: torch.Tensor, fmt: Format, found: Measured) -> dict[str, torch.Tensor]:
    """The tensors that replace a linear's weight, by the last part of their names.

    `weight` is e4m3 or int8 [O, I], or uint8 [O/2, I] with output channels 2k and 2k+1 in the low and
    high half of a byte; `weight_scale` is float32, 0-d, [O] or [O, B].
    """
    if found.smoothing is not None and found.shared is not None:
        weight_OI = smoothed(weight_OI, found.smoothing, found.shared)
    tensors = _WEIGHTS[fmt.weight](weight_OI, fmt, found)
    if found.input_amax is not None:
        bound = FP8_E4M3_MAX if fmt.activation == "float8_e4m3fn" else INT8_MAX
        tensors["input_scale"] = found.input_amax.float() / bound
    if found.shared is not None and not found.folded:
        tensors["pre_quant_scale"] = found.shared
    return tensors


def smoothed(weight_OI: torch.Tensor, own_I: torch.Tensor, shared_I: torch.Tensor) -> torch.Tensor:
    """The weight for inputs multiplied by `shared_I`, rounded where ModelOpt rounds."""
    dtype = weight_OI.dtype
    weight_OI = (weight_OI * (1.0 / own_I)[None, :]).to(dtype)
    kept_I = own_I.to(dtype)
    if torch.equal(kept_I, shared_I):
        return weight_OI
    return (weight_OI.float() * kept_I.float() / shared_I.float()).to(dtype)


def folded_norm(weight_I: torch.Tensor, shared_I: torch.Tensor) -> torch.Tensor:
    """The norm's weight with its linears' smoothing in it."""
    return (weight_I * shared_I).to(weight_I.dtype)


def _fp8(weight_OI: torch.Tensor, fmt: Format, found: Measured) -> dict[str, torch.Tensor]:
    assert found.weight_amax is not None
    scale = found.weight_amax.float() / FP8_E4M3_MAX
    return {"weight": (weight_OI.float() / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def _int8(weight_OI: torch.Tensor, fmt: Format, found: Measured) -> dict[str, torch.Tensor]:
    scale_O = _scale(weight_OI.abs().amax(dim=1), INT8_MAX)
    codes_OI = (weight_OI / scale_O[:, None]).round().clamp(-INT8_MAX - 1, INT8_MAX).to(torch.int8)
    return {"weight": codes_OI, "weight_scale": scale_O}


def _int4(weight_OI: torch.Tensor, fmt: Format, found: Measured) -> dict[str, torch.Tensor]:
    blocks = weight_OI.view(len(weight_OI), -1, fmt.block_size)
    scale_OB = _scale(blocks.abs().amax(dim=2), INT4_MAX)
    codes = (blocks / scale_OB[:, :, None]).round().clamp(-INT4_MAX - 1, INT4_MAX).to(torch.int8).flatten(1)
    low, high = codes[0::2] & 0x0F, codes[1::2] & 0x0F
    return {"weight": (low | (high << 4)).view(torch.uint8), "weight_scale": scale_OB}


def _scale(amax: torch.Tensor, bound: float) -> torch.Tensor:
    """Scales for the largest magnitudes; one where all weights are zero."""
    amax = torch.where(amax == 0, torch.full_like(amax, bound), amax)
    return amax.clamp(min=torch.finfo(amax.dtype).tiny).float() / bound


_WEIGHTS = {"float8_e4m3fn": _fp8, "int8": _int8, "int4": _int4}
