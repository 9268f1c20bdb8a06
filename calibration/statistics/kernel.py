"""The inner loop of AWQ's search as one GPU kernel; Triton comes with torch's CUDA builds only.

Element by element the arithmetic is `search.error`'s: the same roundings in the same order.
"""

# R: rows of a weight   I: input channels

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from calibration.formats.scales import INT4_MAX

ROWS = 32
"""Rows of one program's tile, whose columns are one block (8 to 32 run at 365e9 elements/s on one H200)."""


def error(
    rows_RI: torch.Tensor, factors_I: torch.Tensor, block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """What rounding the smoothed weights changes of the weights, inputs being multiplied by the factors."""
    rows_RI = rows_RI.contiguous()
    error_RI = torch.empty_like(rows_RI, dtype=dtype)
    num_rows, num_in = rows_RI.shape
    grid = (triton.cdiv(num_rows, ROWS), num_in // block_size)
    tensors = (rows_RI, factors_I, 1.0 / factors_I, error_RI)
    tiny = torch.finfo(rows_RI.dtype).tiny
    _error[grid](*tensors, num_rows, num_in, tiny, INT4_MAX, BLOCK=block_size, TILE=ROWS)
    return error_RI


@triton.jit  # type: ignore[untyped-decorator]
def _error(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917 a kernel takes pointers and sizes one by one
    weights, factors, inverses, errors, num_rows, num_in, tiny, bound, BLOCK: tl.constexpr, TILE: tl.constexpr
):
    row = (tl.program_id(0) * TILE + tl.arange(0, TILE))[:, None]
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    # 64 bits: an element's index may exceed what int32 counts.
    place = row.to(tl.int64) * num_in + column
    inside = row < num_rows
    weight = tl.load(weights + place, mask=inside, other=0.0)
    # Rounded to the weight's dtype and back, as a smoothed weight is stored.
    scaled = (weight.to(tl.float32) * tl.load(inverses + column)).to(weight.dtype).to(tl.float32)
    amax = tl.max(tl.abs(scaled), axis=1, keep_dims=True)
    # A block of zeros gets a scale of one.
    amax = tl.where(amax == 0.0, bound, tl.maximum(amax, tiny))
    # `/` is an approximation here; where a quotient lies half-way between codes, its last bit decides.
    step = tl.div_rn(amax, tl.zeros_like(amax) + bound)
    value = libdevice.rint(tl.div_rn(scaled, tl.broadcast_to(step, (TILE, BLOCK)))) * step
    changed = weight.to(tl.float32) - value * tl.load(factors + column)
    tl.store(errors + place, changed.to(errors.dtype.element_ty), mask=inside)
