"""The experts of a layer as single linears, under the names of the source checkpoint.

Transformers 5 fuses the experts of a layer into three-dimensional tensors, whose experts hooks cannot observe
one by one. Here each expert has its three linears again, and records the tokens that it got.
"""

import torch
from torch import nn
from torch.nn import functional


class Expert(nn.Module):
    """One expert: gate and up projections, and the down projection of their product."""

    def __init__(self, names: tuple[str, str, str], sizes: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        hidden, inner = sizes
        self._names = names
        for name, (num_in, num_out) in zip(
            names, ((hidden, inner), (hidden, inner), (inner, hidden)), strict=True
        ):
            self.add_module(name, nn.Linear(num_in, num_out, bias=False, device="meta", dtype=dtype))
        self.rows: torch.Tensor | None = None
        """Rows [N] of the flattened batch that it got."""

    def linears(self) -> list[str]:
        """Names of its linears below it."""
        return list(self._names)

    def forward(self, x_NH: torch.Tensor, rows_N: torch.Tensor) -> torch.Tensor:
        """Applies the expert to the tokens that were sent to it."""
        self.rows = rows_N
        gate, up, down = (self.get_submodule(name) for name in self._names)
        out: torch.Tensor = down(functional.silu(gate(x_NH)) * up(x_NH))
        return out


class Experts(nn.Module):
    """Replaces the fused experts of transformers, with the same inputs and outputs."""

    def __init__(
        self, count: int, names: tuple[str, str, str], sizes: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        for number in range(count):
            self.add_module(str(number), Expert(names, sizes, dtype))

    def forward(self, x_NH: torch.Tensor, chosen_NK: torch.Tensor, weights_NK: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the outputs of each token's experts."""
        out_NH = torch.zeros_like(x_NH)
        for number, expert in enumerate(self.children()):
            rows_N, place_N = torch.where(chosen_NK == number)
            # An expert that no token chose is not called: its hooks would see an empty input.
            if len(rows_N):
                weighted_NH = expert(x_NH[rows_N], rows_N) * weights_NK[rows_N, place_N, None]
                # Expert after expert: the order of the sum, and with it its rounding, is always the same.
                out_NH.index_add_(0, rows_N, weighted_NH.to(out_NH.dtype))
        return out_NH


class Sample:
    """Rows spread evenly over a stream of unknown length: of too many, every second one is dropped."""

    def __init__(self, most: int) -> None:
        self.most, self.seen, self.stride = most, 0, 1
        self._rows: list[torch.Tensor] = []

    def add(self, x_NI: torch.Tensor) -> None:
        """Takes the rows whose number in the stream is a multiple of the stride."""
        # Distance to the next multiple of the stride.
        first = -self.seen % self.stride
        self.seen += len(x_NI)
        if len(kept_rows := x_NI[first :: self.stride]):
            self._rows.append(kept_rows.clone())
        while sum(map(len, self._rows)) > self.most:
            # Every second row that was kept has a number that the doubled stride divides.
            self._rows, self.stride = [self.rows()[::2].clone()], 2 * self.stride

    def rows(self) -> torch.Tensor:
        """The rows so far; there must be one."""
        return torch.cat(self._rows)
