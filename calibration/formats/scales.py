"""Scales and quantized bytes of a linear's weight, from the source weight and what was measured.

Rounding, and where it follows ModelOpt 0.47's Hugging Face export or departs from it on purpose:

fp8          The weight is divided and rounded once, in float32. ModelOpt's export divides a bfloat16 weight
             by a scalar, which keeps the quotient in bfloat16, and rounds again to e4m3. The linears of a
             fused group share one weight scale and one input scale (the maximum of their amax); ModelOpt's
             export leaves them different.
fp8_rowwise  Bytes are ModelOpt's: it divides by a tensor of scales here, which promotes to float32.
int8, int4   Bytes are ModelOpt's. Smoothed weights pass through the source dtype where its calibration
             stores them: once when the linear's own smoothing is applied, once more when the group's
             shared smoothing replaces another one. AWQ's factors are the same for a whole group, so that
             there is one rounding.
w4a8         Codes and block scales (float32) as int4; `weight_scale_2` is the largest smoothed weight of the
             fused group over 448, which is what ModelOpt's second quantizer measures.
Zero weight channels and blocks get a scale of one, as in ModelOpt.

Results are the same bits on a CPU and on a GPU.
"""

# O: output channels   I: input channels   B: blocks along I

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from calibration.errors import CheckpointError, QuantizationIncomplete
from calibration.model.linears import Group
from recipes.formats import Format

FP8_E4M3_MAX = 448.0
"""Largest finite float8_e4m3fn value (OCP 8-bit floating point specification)."""
INT8_MAX = 127.0
INT4_MAX = 7.0
ELEMENTS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Weights that are quantized together: bounds the float32 copies that rounding takes, and keeps them in
the cache of a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The calibrated measurements of one linear; None where the format does not need a value."""

    fmt: Format
    channels: tuple[int, int] | None = None
    """Output and input channels of the weight that was measured."""
    weight_amax: torch.Tensor | None = None
    """Largest (smoothed) weight magnitude, 0-d; for one scale per tensor."""
    weight_in_amax: torch.Tensor | None = None
    """Largest weight magnitude of each input channel [I], before smoothing, in the model's dtype."""
    input_amax: torch.Tensor | None = None
    """Largest (smoothed) input magnitude, 0-d."""
    smoothing: torch.Tensor | None = None
    """Factors [I] that inputs are multiplied by, float32."""
    shared: torch.Tensor | None = None
    """Factors [I] in the model's dtype, common to the group."""
    folded: bool = False
    """Whether the factors are folded into the norm before the linear."""

    def to(self, device: torch.device) -> "Measured":
        """A copy on a device: dividing by a scale on the CPU, a GPU would multiply by its rounded inverse."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        moved: dict[str, Any] = {n: v.to(device) for n, v in values if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


def agreed(
    linears: Mapping[str, Measured], groups: Sequence[Group], stacks: Sequence[tuple[str, ...]] = ()
) -> dict[str, Measured]:
    """Give the linears of every fused group a common amax for weights and inputs, and common smoothing.

    The experts of a stack get a common input amax. QuantizationIncomplete where the formats of a group or
    stack differ.
    """
    result = dict(linears)
    grouped = {name for group in groups for name in group.linears}
    together = {group.linears: group.folds for group in groups}
    together |= {(name,): False for name in linears if name not in grouped}
    for names, folds in together.items():
        members = [linears.get(name) for name in names]
        present = [member for member in members if member is not None]
        if not present:
            continue
        if len(present) < len(names) or any(member.fmt != present[0].fmt for member in present):
            described = ", ".join(
                f"{n} {m.fmt.name if m else 'source'}" for n, m in zip(names, members, strict=True)
            )
            raise QuantizationIncomplete(
                f"linears that runtimes fuse have different formats: {described}; give them one format"
            )
        result |= dict(zip(names, _share_amax(present, folds=folds), strict=True))
    for stack in stacks:
        result |= _share_input_amax({name: result[name] for name in stack if name in result}, len(stack))
    return result


def _share_input_amax(members: Mapping[str, Measured], size: int) -> dict[str, Measured]:
    """The linears of a stack with one input amax."""
    formats = {member.fmt.name for member in members.values()}
    if members and (len(members) < size or len(formats) > 1):
        raise QuantizationIncomplete(
            f"{next(iter(members))}: the experts of a layer have the formats {', '.join(sorted(formats))} in "
            f"{len(members)} of {size} linears; give all of them one"
        )
    input_amax = _max([member.input_amax for member in members.values()])
    return {name: replace(member, input_amax=input_amax) for name, member in members.items()}


def _share_amax(members: Sequence[Measured], *, folds: bool) -> list[Measured]:
    """The linears with their common values; `folds`: smoothing can be folded into a norm."""
    fmt, shared = members[0].fmt, _mean([m.shared for m in members])
    joined = [
        replace(
            member,
            input_amax=_max([m.input_amax for m in members]),
            shared=shared,
            folded=folds and fmt.smoothed and fmt.granularity == "block",
        )
        for member in members
    ]
    # From `joined`: the smoothed maximum depends on the factors that the group shares.
    weights = [_smoothed_amax(m) if fmt.two_level else m.weight_amax for m in joined]
    return [replace(member, weight_amax=_max(weights)) for member in joined]


def _smoothed_amax(measurement: Measured) -> torch.Tensor:
    """Largest smoothed weight, from the largest of each input channel: rounding preserves the order."""
    assert measurement.weight_in_amax is not None
    assert measurement.smoothing is not None
    assert measurement.shared is not None
    return smoothed(measurement.weight_in_amax[None, :], measurement.smoothing, measurement.shared).max()


def _max(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present).max() if present else None


def _mean(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present).mean(dim=0) if present else None


def quantized(weight_OI: torch.Tensor, measurement: Measured) -> dict[str, torch.Tensor]:
    """The tensors that replace a linear's weight, by the last part of their names.

    `weight` is e4m3 or int8 [O, I], or uint8 [O/2, I] with output channels 2k and 2k+1 in the low and
    high half of a byte; `weight_scale` is float32, 0-d, [O] or [O, B]. CheckpointError for a weight whose
    shape differs from the measured one or is not a multiple of blocks and byte pairs.
    """
    fmt = measurement.fmt
    if measurement.channels not in (None, tuple(weight_OI.shape)):
        raise CheckpointError(
            f"the statistics are of a weight of {measurement.channels} channels, this one has "
            f"{tuple(weight_OI.shape)}; record them for this checkpoint"
        )
    require_whole_blocks(tuple(weight_OI.shape), fmt)
    # An even number of rows, since int4 packs two output channels into one byte.
    rows = max(2, ELEMENTS_AT_ONCE[weight_OI.device.type] // weight_OI.shape[1] // 2 * 2)
    pieces = [_piece(piece_OI, measurement) for piece_OI in torch.split(weight_OI, rows)]
    tensors = {"weight": torch.cat([codes for codes, _ in pieces])}
    if fmt.granularity == "tensor":
        # All pieces have the same one, from `weight_amax`.
        tensors["weight_scale"] = pieces[0][1]
    else:
        tensors["weight_scale"] = torch.cat([scale for _, scale in pieces])
    if fmt.two_level:
        assert measurement.weight_amax is not None
        tensors["weight_scale_2"] = _divide(measurement.weight_amax, FP8_E4M3_MAX)
    if measurement.input_amax is not None:
        bound = FP8_E4M3_MAX if fmt.activation == "float8_e4m3fn" else INT8_MAX
        tensors["input_scale"] = _divide(measurement.input_amax, bound)
    if measurement.shared is not None and not measurement.folded:
        tensors["pre_quant_scale"] = measurement.shared
    return tensors


def require_whole_blocks(shape: tuple[int, ...], fmt: Format) -> None:
    """Raise CheckpointError for a weight that is not a multiple of blocks of inputs and pairs of outputs."""
    num_out, num_in = shape
    if fmt.granularity == "block" and (num_in % fmt.block_size or num_out % 2):
        raise CheckpointError(
            f"{num_out} x {num_in} channels; {fmt.name} needs an even number of outputs and whole blocks of "
            f"{fmt.block_size} inputs; choose another format"
        )


def _piece(weight_OI: torch.Tensor, measurement: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of some output channels."""
    if measurement.smoothing is not None and measurement.shared is not None:
        weight_OI = smoothed(weight_OI, measurement.smoothing, measurement.shared)
    return _CODES[measurement.fmt.weight](weight_OI, measurement)


def smoothed(weight_OI: torch.Tensor, own_I: torch.Tensor, shared_I: torch.Tensor) -> torch.Tensor:
    """The weight for inputs multiplied by `shared_I`, rounded where ModelOpt rounds."""
    dtype = weight_OI.dtype
    # Times the inverse, not divided, as ModelOpt does: the bits differ.
    weight_OI = (weight_OI * (1.0 / own_I)[None, :]).to(dtype)
    # ModelOpt stores its factors in the model's dtype, and undoes them with the stored ones.
    own_rounded_I = own_I.to(dtype)
    if torch.equal(own_rounded_I, shared_I):
        return weight_OI
    return (weight_OI.float() * own_rounded_I.float() / shared_I.float()).to(dtype)


def folded_norm(weight_I: torch.Tensor, shared_I: torch.Tensor) -> torch.Tensor:
    """The norm's weight with its linears' smoothing in it."""
    return (weight_I * shared_I).to(weight_I.dtype)


def _fp8(weight_OI: torch.Tensor, measurement: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    if measurement.fmt.granularity == "tensor":
        assert measurement.weight_amax is not None
        scale = _divide(measurement.weight_amax, FP8_E4M3_MAX)
        return (weight_OI.float() / scale).to(torch.float8_e4m3fn), scale
    scale_O = _scale(weight_OI.abs().amax(dim=1), FP8_E4M3_MAX)
    return (weight_OI.float() / scale_O[:, None]).to(torch.float8_e4m3fn), scale_O


def _int8(weight_OI: torch.Tensor, measurement: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    scale_O = _scale(weight_OI.abs().amax(dim=1), INT8_MAX)
    codes_OI = (weight_OI / scale_O[:, None]).round_().clamp_(-INT8_MAX - 1, INT8_MAX).to(torch.int8)
    return codes_OI, scale_O


def _int4(weight_OI: torch.Tensor, measurement: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = weight_OI.view(len(weight_OI), -1, measurement.fmt.block_size)
    scale_OB = _scale(blocks.abs().amax(dim=2), INT4_MAX)
    codes = (blocks / scale_OB[:, :, None]).round_().clamp_(-INT4_MAX - 1, INT4_MAX).to(torch.int8).flatten(1)
    # Without the sign's upper bits, which would spill into the other half.
    low, high = codes[0::2] & 0x0F, codes[1::2] & 0x0F
    # The low half holds the even output channel, as `quantized` promises.
    return (low | (high << 4)).view(torch.uint8), scale_OB


def _scale(amax: torch.Tensor, bound: float) -> torch.Tensor:
    """Scales for the largest magnitudes; one where all weights are zero."""
    amax = torch.where(amax == 0, torch.full_like(amax, bound), amax)
    # Denormal magnitudes would give a scale whose inverse is infinite.
    return _divide(amax.clamp(min=torch.finfo(amax.dtype).tiny), bound)


def _divide(amax: torch.Tensor, bound: float) -> torch.Tensor:
    """The quotient in float32, correctly rounded.

    The divisor is a tensor on the same device: by a Python number, a GPU would multiply by its inverse.
    """
    return amax.float() / torch.full((), bound, device=amax.device)


_CODES: Mapping[str, Callable[[torch.Tensor, Measured], tuple[torch.Tensor, torch.Tensor]]] = {
    "float8_e4m3fn": _fp8,
    "int8": _int8,
    "int4": _int4,
}
