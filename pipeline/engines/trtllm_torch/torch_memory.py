"""Memory of checkpoints that TensorRT-LLM's PyTorch backend serves; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.backend import memory_formulas as formulas
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits, all_tokens
from pipeline.trtllm import serving_memory
from recipes.formats import Format
from recipes.schema import Speculative


@dataclass(frozen=True, slots=True)
class TorchMemory:
    """What an engine takes on its GPUs."""

    settings: Callable[[BuildRequest], Mapping[str, Any]]
    """The resolved settings of an engine."""

    def limits(self, request: BuildRequest) -> Limits:
        """The sizes of the engine; logits are computed of the tokens that are sampled."""
        settings = self.settings(request)
        gathers = bool(settings.get("gather_context_logits", False))
        return serving_memory.served_limits(request, settings, gathers=gathers)

    def cached_tokens(self, request: BuildRequest) -> tuple[int | None, ...]:
        """No windows are passed to the runtime."""
        return all_tokens(request.shape)

    def activation_bytes(self, request: BuildRequest, num_tokens: int) -> int:
        """Tensors that PyTorch holds at once."""
        engine = request.engine
        return formulas.torch_activation_bytes(request.shape, engine.tp, engine.ep, num_tokens)

    def buffer_bytes(self, request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
        """Buffers of TensorRT-LLM's runtime."""
        return serving_memory.buffer_bytes(request, limits, last_stage=last_stage)

    def context_bytes(self, world_size: int) -> int:
        """CUDA and NCCL, and CUDA graphs."""
        return serving_memory.context_bytes(world_size) + formulas.CUDA_GRAPH_BYTES

    def build_gpu_bytes(self, weights: int, activations: int) -> int:
        """Nothing is built: the warm-up serves."""
        return 0

    def head_copies(self, speculative: Speculative) -> int:
        """Each head once."""
        return 1

    def fp8_cache_beside(self, fmt: Format) -> bool:
        """An FP8 cache goes with any weights."""
        return True
