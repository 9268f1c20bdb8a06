"""AWQ's search of smoothing factors from the second moments of a linear's inputs, in one pass over the data.

With G = XᵀX over all calibration tokens, the squared output error of weights that changed by ΔW is
tr(ΔW G ΔWᵀ), whose cost does not depend on the number of tokens. Candidates are ModelOpt 0.47's (`awq_lite`):
scale = mean|x|^alpha / mean|w|^(1 - alpha) for alpha 0, 0.1, ..., 1. Linears that runtimes fuse are judged
together, where ModelOpt searches for each and averages what it found.
"""

# N: tokens   I: input channels   O: output channels   R: rows of a weight   B: blocks along I   C: candidates

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch

from calibration.errors import CheckpointError
from calibration.formats.scales import INT4_MAX
from calibration.statistics.budget import PIECE_ELEMENTS

EXPONENTS: Final = tuple(step / 10 for step in range(11))
"""Candidates for alpha, in the order of `Found.losses_C`."""
SCALE_RANGE: Final = (1e-4, 1e4)
"""ModelOpt's bounds of a scale before it is centred."""
STRIPES: Final = 8
"""Column stripes of a symmetric matrix, of which only the part above the diagonal is computed: 9/16."""
NARROWEST_STRIPE: Final = 256
"""Input channels; narrower products run no faster."""


Error = Callable[[torch.Tensor, torch.Tensor, int, torch.dtype], torch.Tensor]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Outcome of a search, on the device of the weights."""

    smoothing_I: torch.Tensor
    """Factors that inputs are multiplied by: float32, of values that the source dtype holds."""
    losses_C: torch.Tensor
    """Squared output error of each candidate relative to the squared output, float32."""


class Moments:
    """Second moments G = XᵀX of a linear's inputs, summed in float32 over batches.

    Products of bfloat16 inputs are summed in float32 on a GPU; a CPU rounds each batch's off-diagonal sums to
    bfloat16, five times as fast (AVX-512), and less than the search itself rounds them.
    """

    def __init__(self, num_in: int, device: torch.device | str) -> None:
        self._sum_II = torch.zeros(num_in, num_in, dtype=torch.float32, device=device)
        self._squares_I = torch.zeros(num_in, dtype=torch.float32, device=device)

    def add(self, x_NI: torch.Tensor) -> None:
        """Adds the inputs of N tokens."""
        on_cpu = x_NI.device.type == "cpu"
        if on_cpu and x_NI.dtype != torch.bfloat16:  # products of float16 would overflow it
            x_NI = x_NI.float()
        self._squares_I += torch.linalg.vector_norm(x_NI, dim=0, dtype=torch.float32).square_()
        for start, end in _stripes(x_NI.shape[1]):
            above, stripe = x_NI[:, :end].T, x_NI[:, start:end]
            total = self._sum_II[:end, start:end]
            if x_NI.dtype == torch.float32:
                total.addmm_(above, stripe)
            elif on_cpu:
                total += torch.mm(above, stripe)
            else:
                torch.addmm(total, above, stripe, out_dtype=torch.float32, out=total)

    @property
    def gram_II(self) -> torch.Tensor:
        """The sum so far; float32, symmetric."""
        for start, end in _stripes(len(self._sum_II)):
            self._sum_II[start:end, :start] = self._sum_II[:start, start:end].T
            square = self._sum_II[start:end, start:end]
            # The square on the diagonal was computed in whole; its rounded halves may differ, so one is
            # mirrored.
            square.copy_(square.triu() + square.triu(1).T)
        # The diagonal was summed apart, in float32: its rounding errors do not cancel.
        self._sum_II.diagonal().copy_(self._squares_I)
        return self._sum_II


def best(
    weights: Sequence[torch.Tensor],
    gram_II: torch.Tensor,
    input_mean_I: torch.Tensor,
    *,
    block_size: int = 128,
) -> SearchResult:
    """The candidate that changes the outputs of linears [O, I] with one input least, rounded to int4 blocks.

    Nothing waits for the device. Raises CheckpointError where blocks do not divide the input channels.
    """
    dtype, num_in = weights[0].dtype, weights[0].shape[1]
    if num_in % block_size:
        raise CheckpointError(
            f"{num_in} input channels are not whole blocks of {block_size}; exclude the linear, or choose "
            "a format without blocks"
        )
    scales_CI = _scales(input_mean_I, _weight_share(weights, block_size))
    # Rounded as the checkpoint will hold them, so that the search judges what a runtime computes.
    factors_CI = (1.0 / scales_CI).to(dtype).float()
    form, change = _Form(gram_II, dtype), _error_on(gram_II.device)
    # Sums over many pieces: in float32 the candidates' small differences could drown.
    losses_C = torch.zeros(len(EXPONENTS), dtype=torch.float64, device=gram_II.device)
    output = torch.zeros((), dtype=torch.float64, device=gram_II.device)
    for rows_RI in _pieces(weights):
        output += form.trace(rows_RI.to(form.dtype))
        for number, factors_I in enumerate(factors_CI):
            losses_C[number] += form.trace(change(rows_RI, factors_I, block_size, form.dtype))
    losses_C /= output.clamp(min=torch.finfo(torch.float32).tiny)
    # A candidate whose loss is not a number must not win; `argmin` would take it.
    choice = losses_C.nan_to_num(nan=torch.inf).argmin()
    # Selected on the device: `factors_CI[int(choice)]` would wait for it.
    return SearchResult(factors_CI.index_select(0, choice.view(1))[0], losses_C.float())


class _Form:
    """The quadratic form D -> tr(D G Dᵀ): G's diagonal in float32, the rest in the operands' dtype.

    The diagonal's terms all have one sign, so that their rounding errors add up; those of the others cancel.
    """

    def __init__(self, gram_II: torch.Tensor, weight_dtype: torch.dtype) -> None:
        exact = gram_II.device.type == "cpu" and weight_dtype != torch.bfloat16
        self.dtype = torch.float32 if exact else torch.bfloat16
        self._diagonal_I = gram_II.diagonal().clone()
        self._stripes = [self._stripe(gram_II, start, end) for start, end in _stripes(len(gram_II))]

    def _stripe(self, gram_II: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Columns of G above the diagonal; those above their own square twice, for both sides."""
        stripe = gram_II[:end, start:end].to(self.dtype, copy=True)
        # G is symmetric, so an entry above the diagonal stands for its mirror image too.
        stripe[:start] *= 2
        stripe[start:].fill_diagonal_(0)
        return stripe

    def trace(self, rows_RI: torch.Tensor) -> torch.Tensor:
        """tr(D G Dᵀ) for D in the form's dtype; 0-d float32."""
        products_RI = torch.empty_like(rows_RI)
        start = 0
        for stripe in self._stripes:
            end = len(stripe)
            torch.mm(rows_RI[:, :end], stripe, out=products_RI[:, start:end])
            start = end
        squares_I = torch.linalg.vector_norm(rows_RI, dim=0, dtype=torch.float32).square_()
        across = products_RI.mul_(rows_RI).sum(dtype=torch.float32)
        return across + torch.dot(squares_I, self._diagonal_I)


def _error_on(device: torch.device) -> Error:
    """The fastest `error` for a device: on a GPU one kernel, eight times as fast as torch op by op."""
    if device.type == "cpu":
        return error
    from calibration.statistics.kernel import error as kernel  # needs Triton, which a CPU's torch lacks

    on_gpu: Error = kernel
    return on_gpu


def error(
    rows_RI: torch.Tensor, factors_I: torch.Tensor, block_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """What rounding the smoothed weights changes of the weights, inputs being multiplied by the factors."""
    scaled_RI = torch.mul(rows_RI, 1.0 / factors_I, out=torch.empty_like(rows_RI))
    blocks_RBI = scaled_RI.view(len(rows_RI), -1, block_size)
    step_RB1 = _steps(blocks_RBI)
    values_RBI = (blocks_RBI / step_RB1).round_().mul_(step_RB1)
    error_RI = torch.empty_like(rows_RI, dtype=dtype)
    return torch.addcmul(rows_RI, values_RBI.flatten(1), factors_I, value=-1, out=error_RI)


def _steps(blocks_RBI: torch.Tensor) -> torch.Tensor:
    """Scales [R, B, 1] of int4 blocks, float32, as calibration/formats/scales.py writes them."""
    amax = torch.linalg.vector_norm(blocks_RBI, ord=torch.inf, dim=2, keepdim=True)
    amax = torch.where(amax == 0, INT4_MAX, amax).clamp(min=torch.finfo(amax.dtype).tiny)
    return amax.float() / INT4_MAX


def _weight_share(weights: Sequence[torch.Tensor], block_size: int) -> torch.Tensor:
    """Mean magnitude [I] of each input channel's weights relative to the largest of their block."""
    total_I = torch.zeros(weights[0].shape[1], dtype=torch.float32, device=weights[0].device)
    for rows_RI in _pieces(weights):
        blocks_RBI = rows_RI.float().abs().view(len(rows_RI), -1, block_size)
        amax = blocks_RBI.amax(dim=2, keepdim=True) + torch.finfo(rows_RI.dtype).tiny
        # Summed over all linears with this input: they get one scale.
        total_I += (blocks_RBI / amax).flatten(1).sum(dim=0)
    return total_I / sum(len(weight) for weight in weights)


def _scales(input_mean_I: torch.Tensor, weight_share_I: torch.Tensor) -> torch.Tensor:
    """ModelOpt's candidate scales [C, I], centred so that the largest and smallest are inverse."""
    alphas_C1 = torch.tensor(EXPONENTS, device=input_mean_I.device)[:, None]
    tiny = torch.finfo(torch.float32).tiny
    scales_CI = input_mean_I.float().pow(alphas_C1) / (weight_share_I.pow(1 - alphas_C1) + tiny)
    scales_CI = scales_CI.clamp(*SCALE_RANGE)
    return scales_CI / (scales_CI.amax(dim=1) * scales_CI.amin(dim=1)).sqrt()[:, None]


def _pieces(weights: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The weights' rows, as many at once as temporaries allow."""
    for weight_OI in weights:
        rows = max(1, PIECE_ELEMENTS[weight_OI.device.type] // weight_OI.shape[1])
        yield from torch.split(weight_OI.detach(), rows)


def _stripes(num_in: int) -> list[tuple[int, int]]:
    """First and last column of the stripes that a symmetric matrix is computed in."""
    count = max(1, min(STRIPES, num_in // NARROWEST_STRIPE))
    edges = [num_in * number // count for number in range(count + 1)]
    return list(pairwise(edges))
