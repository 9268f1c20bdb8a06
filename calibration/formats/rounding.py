"""Simulates a runtime's rounding: the values of dequantized weights and rounded inputs."""

# O: output channels   I: input channels   B: blocks along I   R: rows

from collections.abc import Mapping

import torch

from calibration.formats.scales import FP8_E4M3_MAX, INT8_MAX, Measured


def dequantized(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Weight [O, I] in float32 from the tensors that replace it, by the last part of their names.

    With a second scale, the weight from four-bit codes and block scales is rounded once more, to e4m3.
    """
    codes = parts["weight"]
    if codes.dtype == torch.uint8:
        codes = _int4_codes(codes)
    scale = parts["weight_scale"].float()
    if scale.dim() != 2:
        return codes.float() * (scale[:, None] if scale.dim() else scale)
    weight_OI = (codes.float().view(*scale.shape, -1) * scale[:, :, None]).flatten(1)
    second = parts.get("weight_scale_2")
    return weight_OI if second is None else _e4m3(weight_OI, second)


def _int4_codes(packed: torch.Tensor) -> torch.Tensor:
    """Signed codes [O, I] of bytes [O/2, I]; output channel 2k is in the low half."""
    halves = torch.stack([packed & 0x0F, packed >> 4], dim=1).flatten(0, 1).to(torch.int8)
    # Two's complement of four bits.
    return torch.where(halves > 7, halves - 16, halves)


def rounded(x_RI: torch.Tensor, measurement: Measured, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Inputs in float32 as the format smooths and rounds them; a dynamic scale is computed per row."""
    fmt = measurement.fmt
    if measurement.shared is not None:
        x_RI = x_RI * measurement.shared.float()
    if fmt.activation == "source":
        return x_RI
    bound = FP8_E4M3_MAX if fmt.activation == "float8_e4m3fn" else INT8_MAX
    dynamic = fmt.input_scale == "dynamic"
    scale = x_RI.abs().amax(dim=1, keepdim=True) / bound if dynamic else parts["input_scale"]
    # A row of zeros stays zeros.
    scale = torch.where(scale == 0, 1.0, scale)
    if fmt.activation == "float8_e4m3fn":
        return _e4m3(x_RI, scale)
    # int8 reaches one further below zero, as kernels saturate.
    return (x_RI / scale).round().clamp(-bound - 1, bound) * scale


def _e4m3(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    # torch's cast makes NaN of values beyond the range; kernels saturate.
    steps = (values / scale).clamp(-FP8_E4M3_MAX, FP8_E4M3_MAX)
    return steps.to(torch.float8_e4m3fn).float() * scale
