"""One pipeline stage of one tensor-parallel rank, as a module that torch.export can follow.

Shapes: B requests, T new tokens of each, S cached positions, H hidden size, N rows for which logits are
wanted, V vocabulary size.
Parameter names are the tensor names of the sharded checkpoint, so that binding weights needs no table.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F  # noqa: N812 its usual name
from torch import Tensor, nn

from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.attention import Attention, Step
from pipeline.engines.aoti.blocks import GROUP, RmsNorm, linear_of, rank_sum
from pipeline.engines.aoti.linear import Linear, parameter
from pipeline.engines.aoti.moe_block import Moe
from pipeline.engines.aoti.quantization import LinearFormat


class Mlp(nn.Module):
    """Gated feed-forward network; `fc` is the gate projection and `gate` the up projection.

    Where the source fuses the two, `fc` holds the up projection and then the gate projection.
    """

    def __init__(self, arch: Arch, dtype: torch.dtype, formats: Mapping[str, LinearFormat]) -> None:
        super().__init__()
        self.tp, self.fused = arch.tp, "mlp.gate" not in formats
        inner = arch.intermediate_size // arch.tp
        self.act = partial(F.gelu, approximate="tanh") if arch.hidden_act == "gelu" else F.silu
        fc, proj = (linear_of(formats[name]) for name in ("mlp.fc", "mlp.proj"))
        self.fc = fc(arch.hidden_size, 2 * inner if self.fused else inner, dtype)
        if not self.fused:
            self.gate = linear_of(formats["mlp.gate"])(arch.hidden_size, inner, dtype)
        self.proj = proj(inner, arch.hidden_size, dtype)

    def forward(self, x: Tensor, *, single: bool) -> Tensor:
        """Applies the network: (B, T, H) -> (B, T, H)."""
        if self.fused:
            up, gate = self.fc(x, single=single).chunk(2, -1)
        else:
            gate, up = self.fc(x, single=single), self.gate(x, single=single)
        return rank_sum(self.proj(self.act(gate) * up, single=single), self.tp)


class Layer(nn.Module):
    """Attention and feed-forward network, each with its residual.

    `post_layernorm` is the norm before the network; where norms are around both, the one after the attention.
    """

    def __init__(
        self, arch: Arch, dtype: torch.dtype, formats: Mapping[str, LinearFormat], window: int | None
    ) -> None:
        super().__init__()
        self.sandwich, norm = arch.inter_layernorms, partial(RmsNorm, arch, arch.hidden_size, dtype)
        self.input_layernorm, self.post_layernorm = norm(), norm()
        if self.sandwich:
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = norm(), norm()
        self.attention = Attention(arch, dtype, formats, window)
        self.mlp = (Mlp if arch.experts is None else Moe)(arch, dtype, formats)

    def forward(self, x: Tensor, step: Step, cache: Sequence[Tensor]) -> Tensor:
        """Applies the layer: (B, T, H) -> (B, T, H)."""
        seen = self.attention(self.input_layernorm(x), step, cache)
        if not self.sandwich:
            attended: Tensor = x + seen
            return attended + cast("Tensor", self.mlp(self.post_layernorm(attended), single=step.single))
        attended = x + self.post_layernorm(seen)
        update = self.mlp(self.pre_feedforward_layernorm(attended), single=step.single)
        return attended + cast("Tensor", self.post_feedforward_layernorm(update))


class Embedding(nn.Module):
    """Rows of the vocabulary that this rank holds; where they start is data, so that ranks share code."""

    def __init__(self, arch: Arch, dtype: torch.dtype) -> None:
        super().__init__()
        self.tp, self.rows = arch.tp, arch.rank_vocab
        # The factor is of the compute dtype, as where the model was trained.
        self.scale = torch.tensor(arch.embedding_scale, dtype=dtype, device="cpu").item()
        self.weight = parameter((self.rows, arch.hidden_size), dtype)
        self.register_buffer("start", torch.empty((), dtype=torch.int64, device="meta"))

    def forward(self, tokens: Tensor) -> Tensor:
        """Looks tokens up: (B, T) -> (B, T, H)."""
        rows = self._looked_up(tokens)
        return rows if self.scale == 1 else rows * self.scale

    def _looked_up(self, tokens: Tensor) -> Tensor:
        if self.tp == 1:
            return F.embedding(tokens, self.weight)
        # Tokens of other ranks look row 0 up; the mask makes it zero before the ranks are summed.
        local = tokens - cast("Tensor", self.start)
        local_mask = (local >= 0) & (local < self.rows)
        rows = F.embedding(torch.where(local_mask, local, 0), self.weight)
        return rank_sum(rows * local_mask.unsqueeze(-1), self.tp)


class Transformer(nn.Module):
    """The layers of a stage, with the embedding on the first and the final norm on the last."""

    def __init__(self, arch: Arch, dtype: torch.dtype, stage: int) -> None:
        super().__init__()
        if stage == 0:
            self.vocab_embedding = Embedding(arch, dtype)
        layers = zip(arch.stage_linears(stage), arch.stage_windows(stage), strict=True)
        self.layers = nn.ModuleList(Layer(arch, dtype, formats, window) for formats, window in layers)
        if stage == arch.pp - 1:
            self.ln_f = RmsNorm(arch, arch.hidden_size, dtype)


class Stage(nn.Module):
    """One pipeline stage: tokens or hidden states in, hidden states or logits out."""

    def __init__(self, arch: Arch, dtype: torch.dtype, stage: int, capacity: int, *, single: bool) -> None:
        super().__init__()
        self.arch, self.first, self.last, self.single = arch, stage == 0, stage == arch.pp - 1, single
        self.transformer = Transformer(arch, dtype, stage)
        # A set: layers with the same window share a mask.
        self.windows, self.capacity = set(arch.stage_windows(stage)), capacity
        self.tables = ("cos", "sin", *(("cos_local", "sin_local") if arch.rope_local_base_freq else ()))
        for name in self.tables:
            # A placeholder of float32: `weights.bind` computes the tables.
            table = torch.empty((capacity, arch.head_size), device="meta")
            self.register_buffer(name, table)
        if self.last:
            self.lm_head = Linear(arch.hidden_size, arch.rank_vocab, dtype)

    def forward(
        self, x: Tensor, positions: Tensor, window: Tensor, rows: Tensor, caches: Sequence[Tensor]
    ) -> Tensor:
        """Runs the stage.

        `x` is tokens (B, T) on the first stage and hidden states (B, T, H) on the others; `window` is
        0 .. S-1; `rows` (N,) are the tokens, counted through B and T, whose logits (N, V) float32 are wanted.
        """
        step = self._step(positions, window)
        x = self.transformer.vocab_embedding(x) if self.first else x
        for index, layer in enumerate(self.transformer.layers):
            x = layer(x, step, caches[2 * index : 2 * index + 2])
        return self._logits(x, rows) if self.last else x

    def _step(self, positions: Tensor, window: Tensor) -> Step:
        tables = [cast("Tensor", getattr(self, name))[positions].unsqueeze(2) for name in self.tables]
        # Pairs: the model's own tables at 0 and 1, those of the local base at 2 and 3.
        rotary = {bool(at): (tables[at], tables[at + 1]) for at in range(0, len(tables), 2)}
        visible = {width: self._visible(positions, window, width) for width in self.windows}
        return Step(self.single, positions, window.shape[0], rotary, visible)

    def _visible(self, positions: Tensor, window: Tensor, width: int | None) -> Tensor | None:
        """Which of the positions 0 .. S-1 tokens see that look back at `width` of them: (B, T, S), or all."""
        at = positions.unsqueeze(-1)
        if width is None or width >= self.capacity:
            return None if self.single else window <= at
        # Padding is far beyond S; it sees something, for a sum over nothing would not be a number.
        near = window > at.clamp(max=window.shape[0] - 1) - width
        return near if self.single else (window <= at) & near

    def _logits(self, x: Tensor, rows: Tensor) -> Tensor:
        chosen = x.flatten(0, 1) if self.single else x.flatten(0, 1)[rows]
        logits: Tensor = self.lm_head(self.transformer.ln_f(chosen), single=self.single)
        if self.arch.tp > 1:
            # Gathering stacks ranks along the rows; each has a part of the columns, so they move behind.
            whole = collectives.all_gather_tensor(logits, 0, GROUP)
            logits = torch.unflatten(whole, 0, (self.arch.tp, -1)).transpose(0, 1).flatten(1)
        # Columns beyond the vocabulary are padding, which makes it divisible by tp.
        wide, cap = logits[:, : self.arch.vocab_size].float(), self.arch.final_logit_softcapping
        return wide if cap is None else cap * torch.tanh(wide / cap)
