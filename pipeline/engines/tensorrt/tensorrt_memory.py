"""Memory of TensorRT engines, built and served; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.backend import memory_formulas as formulas
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits
from pipeline.checkpoint.loadable import numbers
from pipeline.drafting import eagle
from pipeline.trtllm import serving_memory
from recipes.formats import E4M3, Format
from recipes.schema import Speculative

WINDOW_POOLS = (1, 0)
"""First version of TensorRT-LLM that surely has a pool per length of window; those of 0.1x have one for all
layers (TensorRT-LLM issue 2912)."""


@dataclass(frozen=True, slots=True)
class TensorrtMemory:
    """What an engine takes on its GPUs."""

    settings: Callable[[BuildRequest], Mapping[str, Any]]
    """The resolved settings of an engine."""

    def limits(self, request: BuildRequest) -> Limits:
        """The sizes of the engine, which computes every token's logits: the gate scores that very engine."""
        settings = self.settings(request)
        gathers = bool(settings.get("gather_context_logits", True))
        return serving_memory.served_limits(request, settings, gathers=gathers)

    def cached_tokens(self, request: BuildRequest) -> tuple[int | None, ...]:
        """Windows save memory where each length has a pool of its own."""
        windows, toolchain = request.shape.windows, request.toolchain
        if numbers(toolchain.version if toolchain is not None else "") >= WINDOW_POOLS:
            return windows
        # One pool is as long as its longest layer: all tokens, as soon as one layer has no window.
        widths = [window for window in windows if window is not None]
        return (max(widths) if len(widths) == len(windows) else None,) * len(windows)  # None: all

    def activation_bytes(self, request: BuildRequest, num_tokens: int) -> int:
        """Tensors of the compiled network, by format."""
        engine = request.engine
        return formulas.activation_bytes(request.shape, request.precision, engine.tp, engine.ep, num_tokens)

    def buffer_bytes(self, request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
        """Buffers of TensorRT-LLM's runtime."""
        return serving_memory.buffer_bytes(request, limits, last_stage=last_stage)

    def context_bytes(self, world_size: int) -> int:
        """CUDA and NCCL."""
        return serving_memory.context_bytes(world_size)

    def build_gpu_bytes(self, weights: int, activations: int) -> int:
        """The weights, and room to time any tactic."""
        return formulas.build_gpu_bytes(weights, activations)

    def head_copies(self, speculative: Speculative) -> int:
        """EAGLE's net is in the engine once per level of its tree."""
        if speculative.mode != "eagle":
            return 1
        return eagle.depth(eagle.tree(speculative.max_draft_len))

    def fp8_cache_beside(self, fmt: Format) -> bool:
        """TensorRT-LLM's builder refuses an FP8 cache beside weights that are not FP8."""
        return fmt.activation == E4M3
