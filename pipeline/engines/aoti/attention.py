"""Grouped-query attention over a static cache.

Shapes: B requests, T new tokens of each, S cached positions, H hidden size, K KV heads of the rank,
Q query heads per KV head, D head size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from torch import Tensor, nn

from pipeline.engines.aoti import kv_cache as kv
from pipeline.engines.aoti.arch import Arch
from pipeline.engines.aoti.blocks import RmsNorm, linear_of, rank_sum
from pipeline.engines.aoti.linear import parameter
from pipeline.engines.aoti.quantization import LinearFormat


@dataclass(frozen=True, slots=True)
class Step:
    """What every layer needs to know about the tokens of one call."""

    single: bool
    """One token of one request, which sees all cached positions given."""
    positions: Tensor
    """(B, T)"""
    length: int
    """Cached positions to attend to, S."""
    rotary: Mapping[bool, tuple[Tensor, Tensor]]
    """Whether a layer rotates by the local base -> cosine and sine (B, T, 1, D), the first half negated."""
    visible: Mapping[int | None, Tensor | None]
    """A layer's window -> (B, T, S) bool: which cached positions a token sees; None: all."""

    def rotate(self, x: Tensor, *, local: bool) -> Tensor:
        """Applies rotary embedding to heads: (B, T, heads, D)."""
        cos, sin = self.rotary[local]
        first, second = x.chunk(2, -1)
        # The table of sines has its first half negated, so that nothing is negated here.
        swapped = torch.cat([second, first], -1)
        return (x.float() * cos + swapped.float() * sin).to(x.dtype)

    def remember(self, cache: Tensor, new: Tensor) -> Tensor:
        """Writes (B, T, K, D) at the tokens' positions; returns the part of the cache to attend to."""
        rows = torch.arange(new.shape[0], device=new.device).unsqueeze(1)
        # In place. Padding writes one position several times, in any order: nobody reads it.
        cache.index_put_((rows, self.positions), new)
        return cache[:, : self.length]


class Attention(nn.Module):
    """Grouped-query attention over a static cache that it writes in place."""

    def __init__(
        self, arch: Arch, dtype: torch.dtype, formats: Mapping[str, LinearFormat], window: int | None
    ) -> None:
        super().__init__()
        self.tp, self.kv_heads, self.head_size = arch.tp, arch.rank_kv_heads, arch.head_size
        self.window, self.local = window, window is not None and arch.rope_local_base_freq is not None
        self.scale, self.cap = arch.attention_scale, arch.attn_logit_softcapping
        self.queries = arch.rank_heads // arch.rank_kv_heads
        self.sizes = [size * self.head_size for size in (arch.rank_heads, self.kv_heads, self.kv_heads)]
        qkv, dense = (linear_of(formats[name]) for name in ("attention.qkv", "attention.dense"))
        self.qkv = qkv(arch.hidden_size, sum(self.sizes), dtype, bias=arch.attn_bias)
        self.dense = dense(self.sizes[0], arch.hidden_size, dtype)
        self.cache_dtype = kv.cache_dtype(arch.kv_cache, dtype)
        self.kv_cache_scaling_factor = None if arch.kv_cache == "auto" else parameter((1,), torch.float32)
        norm = partial(RmsNorm, arch, self.head_size, dtype) if arch.qk_layernorm else nn.Identity
        self.q_layernorm, self.k_layernorm = norm(), norm()

    def forward(self, x: Tensor, step: Step, cache: Sequence[Tensor]) -> Tensor:
        """Attends from the new tokens to everything cached: (B, T, H) -> (B, T, H)."""
        parts = self.qkv(x, single=step.single).split(self.sizes, -1)
        query, key, value = (torch.unflatten(part, -1, (-1, self.head_size)) for part in parts)
        query, key = (
            step.rotate(x, local=self.local) for x in (self.q_layernorm(query), self.k_layernorm(key))
        )
        # Keys are cached rotated: the angle of a position never changes.
        k = step.remember(cache[0], self._stored(key)).transpose(1, 2)
        v = step.remember(cache[1], self._stored(value)).transpose(1, 2)
        # Query heads of one KV head lie side by side: head q reads KV head q // Q.
        query, visible = torch.unflatten(query, 2, (self.kv_heads, self.queries)), step.visible[self.window]
        attend = self._one if step.single else self._many
        seen = attend(query, k, v, visible)
        return rank_sum(self.dense(seen, single=step.single), self.tp)

    def _stored(self, x: Tensor) -> Tensor:
        scale = self.kv_cache_scaling_factor
        return x if scale is None else kv.stored(x, scale, self.cache_dtype)

    def _capped(self, scores: Tensor) -> Tensor:
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def _one(self, query: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """Attends from the newest token, as sums that the compiler fuses: (1, 1, K, Q, D) -> (1, 1, KQD)."""
        scale = self.kv_cache_scaling_factor
        scores = (query[0, 0].float().unsqueeze(2) * kv.units(k[0]).unsqueeze(1)).sum(-1)
        # One scale per layer: it multiplies the scores, so that cached keys stay in their stored units.
        scores = self._capped(scores * (self.scale if scale is None else self.scale * scale))
        if visible is not None:
            scores = torch.where(visible[0], scores, -torch.inf)
        # Softmax without its division, which comes after the sum: once per channel, not per position.
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        seen: Tensor = (weights.unsqueeze(-1) * kv.units(v[0]).unsqueeze(1)).sum(-2)
        total = weights.sum(-1, keepdim=True)
        # Dividing by total / scale puts the values' own scale back.
        seen = seen / (total if scale is None else total / scale)
        return seen.to(query.dtype).flatten().view(1, 1, -1)

    def _many(self, query: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """Attends with the library kernel; the Q heads of a KV head count as tokens: no copy of the cache."""
        # `Stage._visible` leaves the mask out in the single-token graph only.
        assert visible is not None
        batch, time = visible.shape[:2]
        folded = query.permute(0, 2, 3, 1, 4).flatten(2, 3)
        # In the order of the folded queries: for each of the Q heads, all its tokens.
        mask = visible.unsqueeze(1).expand(-1, self.queries, -1, -1).flatten(1, 2).unsqueeze(1)
        if self.kv_cache_scaling_factor is not None:
            k, v = (kv.values(each, self.kv_cache_scaling_factor, query.dtype) for each in (k, v))
        seen = self._attend(folded, k, v, mask)
        heads = torch.unflatten(seen, 2, (self.queries, time))
        return heads.permute(0, 3, 1, 2, 4).reshape(batch, time, -1)

    def _attend(self, query: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attends (B, K, QT, D) -> (B, K, QT, D); the library kernel knows no cap."""
        if self.cap is None:
            return F.scaled_dot_product_attention(query, k, v, attn_mask=mask, scale=self.scale)
        scores = self._capped((query @ k.transpose(-1, -2)).float() * self.scale)
        return torch.where(mask, scores, -torch.inf).softmax(-1).to(v.dtype) @ v
