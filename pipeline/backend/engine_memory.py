"""How engines of a backend take memory: what the prediction of fit asks of a backend; pure."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.backend.build_request import BuildRequest
from pipeline.models.shape import ModelShape
from recipes.formats import Format
from recipes.schema import Speculative


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one engine is built for."""

    batch: int
    """Requests at once."""
    seq_len: int
    """Tokens of a request, those that are proposed and not yet checked included."""
    num_tokens: int
    """Tokens of one pass, of all requests."""
    logit_rows: int
    """Tokens of one pass whose logits are computed."""
    tokens_per_block: int
    """Granularity of the KV cache."""
    free_fraction: float
    """Share of the memory left that the KV cache takes."""


class Memory(Protocol):
    """Memory of one backend's engines; sizes in bytes, per rank."""

    def limits(self, request: BuildRequest) -> Limits:
        """The sizes of the engine, with what the backend makes of its options."""

    def cached_tokens(self, request: BuildRequest) -> tuple[int | None, ...]:
        """Tokens of a request that each layer's cache holds at most; None: all."""

    def activation_bytes(self, request: BuildRequest, num_tokens: int) -> int:
        """Tensors inside one decoder layer for one pass of so many tokens."""

    def buffer_bytes(self, request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
        """Logits, decoder and bookkeeping of the runtime."""

    def context_bytes(self, world_size: int) -> int:
        """What a rank's process takes before any weight."""

    def build_gpu_bytes(self, weights: int, activations: int) -> int:
        """Memory that building a rank wants free on its GPU; 0 where nothing is built on one."""

    def head_copies(self, speculative: Speculative) -> int:
        """Copies of the heads that propose tokens in an engine."""

    def fp8_cache_beside(self, fmt: Format) -> bool:
        """Whether an FP8 cache is built beside weights of a format."""


def all_tokens(shape: ModelShape) -> tuple[int | None, ...]:
    """`cached_tokens` of a runtime whose layers all keep every token."""
    return (None,) * len(shape.windows)
