"""The vocabulary in which a model family says which source tensors its ranks are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pipeline.models.shape import ModelShape

Split = Literal["column", "row"]
"""Dimension of `[out, in]` that ranks divide: `column` the outputs (dim 0), `row` the inputs (dim 1)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One source linear that becomes output rows of a local linear."""

    source: str
    """Module below the layer, e.g. `self_attn.q_proj`; of a stack, with `{}` for the expert's number."""
    outputs: int
    """Output channels."""
    units: int
    """Equal runs of outputs that stay whole: heads, or the channels themselves."""
    start: int = 0
    """First of the outputs in the source linear, which may hold other parts too."""
    whole: int = 0
    """Output channels of the source linear; 0: just these."""

    @property
    def held(self) -> int:
        """Output channels of the source linear."""
        return self.whole or self.outputs


@dataclass(frozen=True, slots=True)
class Linear:
    """A local linear: its parts, one after another along the outputs."""

    local: str
    split: Split
    parts: tuple[Part, ...]
    inputs: int
    """Input channels."""
    bias: bool = False
    experts: int = 0
    """Experts that each have such a linear: they are stacked, [E, out, in]; 0: it is one linear."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The source linears below the layer, in the order in which they are written."""
        return tuple(part for expert in self.by_expert for part in expert)

    @property
    def by_expert(self) -> tuple[tuple[str, ...], ...]:
        """The source linears of each expert; of a linear that is no stack, all of them together."""
        return _by_expert(tuple(part.source for part in self.parts), self.experts or 1)


@cache
def _by_expert(sources: tuple[str, ...], experts: int) -> tuple[tuple[str, ...], ...]:
    """Spells the names of all experts, once: hundreds of experts in every layer take half a second."""
    return tuple(tuple(source.format(expert) for source in sources) for expert in range(experts))


@dataclass(frozen=True, slots=True)
class Norm:
    """A vector that every tensor-parallel rank holds whole."""

    local: str
    source: str
    size: int
    plus_one: bool = False
    """TensorRT-LLM holds one plus the source's weight."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A matrix that is never quantized and that every tensor-parallel rank holds whole."""

    local: str
    source: str
    shape: tuple[int, int]
    widened: bool = False
    """Written as float32, which holds every value of the source dtype."""


Module = Linear | Norm | Whole


@dataclass(frozen=True, slots=True)
class Older:
    """What the newest names of a family were called up to a release."""

    last: str
    """The release, as major.minor."""
    moved: tuple[str, str] = ("", "")
    """A module of the layer, or the beginning of its name, and its older name; empty: none moved."""
    config: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda config: config
    """Changes the newest `config.json` into that of the release."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one model family is laid out in both worlds."""

    architectures: tuple[str, ...]
    decoder: str
    """TensorRT-LLM's name of the decoder type."""
    layer: Callable[[ModelShape], tuple[Module, ...]]
    """The modules of one layer, in the order they run."""
    shared: tuple[tuple[str, ...], ...]
    """Modules of a layer that runtimes fuse: they share per-tensor scales and smoothing; stacks aside."""
    config: Callable[[ModelShape], Mapping[str, Any]]
    """Fields of TensorRT-LLM's `config.json` that only this family has."""
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    final_norm: str = "model.norm"
    head: str = "lm_head.weight"
    kv_scales: tuple[str, ...] = ("self_attn.k_proj.k_scale", "self_attn.v_proj.v_scale")
    """Scales of a layer's keys and values, below the layer."""
    left_in_source: tuple[str, ...] = ()
    """Patterns of local modules that no format touches, for TensorRT-LLM's `exclude_modules`."""
    older: tuple[Older, ...] = ()
    """Names up to earlier releases, oldest first."""

    def stacks(self, shape: ModelShape) -> list[Linear]:
        """Lists a layer's stacks of experts."""
        return [each for each in self.layer(shape) if isinstance(each, Linear) and each.experts]

    def groups(self, shape: ModelShape) -> list[tuple[str, ...]]:
        """Lists the modules of a layer that must have one format: fused ones, and those of a stack."""
        return [*self.shared, *(stack.sources for stack in self.stacks(shape))]
