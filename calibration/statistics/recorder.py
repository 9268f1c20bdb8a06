"""Records the inputs of a decoder layer's linears by hooks, once per distinct input, without device syncs."""

# N: tokens that are no padding   I: input channels   O: output channels   R: sampled rows   H: key heads

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from calibration.statistics.awq_search import Moments, best
from calibration.statistics.batches import ROWS, Batch
from calibration.statistics.single_experts import Expert, Sample

BLOCK = 128
"""Input channels of a block of int4 weights."""
CACHED_ELEMENTS = 1 << 17
"""Elements that a CPU turns into float32 and reduces while they are in its cache."""


class Input:
    """Statistics of one distinct input of some linears."""

    def __init__(self, num_in: int, like: torch.Tensor, *, search: bool) -> None:
        self.linears: list[str] = []
        """Names of the linears that read it, in the order they ran."""
        self.amax_I = torch.zeros(num_in, dtype=torch.float32, device=like.device)
        self.sum_I = torch.zeros(num_in, dtype=torch.float32, device=like.device)
        self.sample: list[torch.Tensor] = []
        self.moments = Moments(num_in, like.device) if search else None
        self.tokens = 0

    def add(self, x_NI: torch.Tensor, sample_R: torch.Tensor) -> None:
        """Adds the inputs of N tokens."""
        for part_NI in _parts(x_NI):
            amax_I = torch.linalg.vector_norm(part_NI, ord=torch.inf, dim=0)
            torch.maximum(self.amax_I, amax_I.float(), out=self.amax_I)
            # The sum of magnitudes, in float32 whatever the input's dtype.
            self.sum_I += torch.linalg.vector_norm(part_NI, ord=1, dim=0, dtype=torch.float32)
        if len(sample_R):
            self.sample.append(x_NI.index_select(0, sample_R))
        if self.moments is not None:
            self.moments.add(x_NI)
        self.tokens += len(x_NI)

    def rows(self) -> torch.Tensor:
        """The sample [R, I]."""
        return torch.cat(self.sample)


class Routed(Input):
    """Statistics of the input of an expert, whose number of tokens depends on the router."""

    def __init__(self, num_in: int, like: torch.Tensor) -> None:
        super().__init__(num_in, like, search=False)
        self.spread = Sample(ROWS)

    def add(self, x_NI: torch.Tensor, sample_R: torch.Tensor) -> None:
        """Adds the inputs of N tokens; which are sampled is decided here."""
        super().add(x_NI, sample_R[:0])
        self.spread.add(x_NI)

    def rows(self) -> torch.Tensor:
        """The sample [R, I]."""
        return self.spread.rows()


class Recorder:
    """Hooks on one layer's linears; acts as its KV cache to observe keys and values."""

    def __init__(
        self, linears: Mapping[str, nn.Linear], experts: Mapping[str, Expert], prefix: str, *, search: bool
    ) -> None:
        self.linears = dict(linears)
        self.experts = {
            f"{name}.{linear}": expert for name, expert in experts.items() for linear in expert.linears()
        }
        """Linears of experts -> the expert."""
        self.attention = f"{prefix}self_attn"
        self.search = search
        self.inputs: dict[str, Input] = {}
        """First linear that reads an input -> statistics of the input."""
        self.heads: dict[str, torch.Tensor] = {}
        self._batch: Batch | None = None
        self._last: torch.Tensor | None = None
        self._holder = ""
        self._handles = [
            module.register_forward_pre_hook(partial(self._see, name))
            for name, module in self.linears.items()
        ]

    def begin(self, batch: Batch | None) -> None:
        """Set the batch that runs next; None for none."""
        self._batch, self._last = batch, None

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _see(self, name: str, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0]
        # Linears that runtimes fuse are called one after another with the same tensor: one record serves them
        # all.
        if x is not self._last:
            self._last, self._holder = x, name
            assert self._batch is not None
            x_NI = self._valid(name, x.flatten(0, -2), self._batch.valid_N)
            if name not in self.inputs and len(x_NI):
                self.inputs[name] = self._input(name, x)
            if len(x_NI):
                self.inputs[name].add(x_NI, self._batch.sample_R)
        # An expert without tokens has no record.
        if self._holder in self.inputs and name not in self.inputs[self._holder].linears:
            self.inputs[self._holder].linears.append(name)

    def _valid(self, name: str, x_NI: torch.Tensor, valid_N: torch.Tensor | None) -> torch.Tensor:
        """The rows that are not padding; for an expert, those that come from tokens other than padding."""
        if valid_N is None:
            return x_NI
        if name not in self.experts:
            return x_NI.index_select(0, valid_N)
        rows_N = self.experts[name].rows
        assert rows_N is not None
        # The router sends padding to experts too.
        return x_NI[torch.isin(rows_N, valid_N)]

    def _input(self, name: str, x: torch.Tensor) -> Input:
        if name in self.experts:
            return Routed(x.shape[-1], x)
        return Input(x.shape[-1], x, search=self.search and self._searched(name, x))

    def _searched(self, name: str, x: torch.Tensor) -> bool:
        """Whether to search smoothing for a linear: int4 blocks fit its inputs, and a norm can be smoothed.

        Linears beside experts read the router's input, so that smoothing cannot be folded into the norm.
        """
        beside_experts = bool(self.experts) and not name.startswith(self.attention)
        return not beside_experts and x.shape[-1] % BLOCK == 0 and len(self.linears[name].weight) % 2 == 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, _layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the attention with keys, after the rotary embedding, and values [B, H, T, D]."""
        for name, states in (("key_amax", key), ("value_amax", value)):
            assert self._batch is not None
            if self._batch.valid_N is not None:
                rows_NHD = states.transpose(1, 2).flatten(0, 1).index_select(0, self._batch.valid_N)
                amax_H = torch.linalg.vector_norm(rows_NHD, ord=torch.inf, dim=(0, 2))
            else:
                amax_H = torch.linalg.vector_norm(states, ord=torch.inf, dim=(0, 2, 3))
            earlier_H = self.heads.get(name)
            self.heads[name] = amax_H if earlier_H is None else torch.maximum(earlier_H, amax_H)
        # Nothing is kept: a pass sees each sequence in one piece, so that there is no earlier context to add.
        return key, value

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything recorded, by the artifact's names; on the device."""
        recorded = {f"{self.attention}.{name}": amax_H.float() for name, amax_H in self.heads.items()}
        for record in self.inputs.values():
            mean_I = record.sum_I / record.tokens
            recorded[f"{record.linears[0]}.input_sample"] = record.rows()
            searched = self._searched_fields(record, mean_I)
            for name in record.linears:
                fields = {"input_amax": record.amax_I, "input_mean": mean_I} | searched
                recorded |= {f"{name}.{field}": tensor for field, tensor in fields.items()}
        for name, linear in self.linears.items():
            for field, dim in (("weight_amax", 1), ("weight_in_amax", 0)):
                recorded[f"{name}.{field}"] = torch.linalg.vector_norm(
                    linear.weight, ord=torch.inf, dim=dim
                ).float()
        return recorded

    def expert_tokens(self) -> dict[str, int]:
        """Expert -> tokens that it was sent, padding aside."""
        tokens_of = {record.linears[0]: record.tokens for record in self.inputs.values()}
        # Backwards, so that the first linear of each expert is the one that stays: its input is the expert's.
        firsts = {name.rpartition(".")[0]: name for name in reversed(self.experts)}
        return {expert: tokens_of.get(first, 0) for expert, first in reversed(firsts.items())}

    def _searched_fields(self, record: Input, mean_I: torch.Tensor) -> dict[str, torch.Tensor]:
        """AWQ's outcome for the linears of one input; nothing where int4 does not fit one of them."""
        weights = [self.linears[name].weight for name in record.linears]
        if record.moments is None or any(len(weight_OI) % 2 for weight_OI in weights):
            return {}
        outcome = best(weights, record.moments.gram_II, mean_I, block_size=BLOCK)
        record.moments = None  # free the largest tensor before the next search
        return {"awq_smoothing": outcome.smoothing_I, "awq_loss": outcome.losses_C}


def _parts(x_NI: torch.Tensor) -> Iterator[torch.Tensor]:
    """All rows at once on a GPU; on a CPU, in float32, as many as its cache holds."""
    if x_NI.device.type != "cpu":
        yield x_NI
        return
    for part_NI in torch.split(x_NI, max(1, CACHED_ELEMENTS // x_NI.shape[1])):
        yield part_NI.float()
