"""Memory of engines that run on the CPU, whose ranks share the host's; pure."""

from pipeline.backend import memory_formulas as formulas
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits, all_tokens
from recipes.formats import Format
from recipes.schema import Speculative

LOGITS_BYTES = 256 << 20
"""Most that the logits of one pass take."""


class AotiMemory:
    """What an engine takes of its host."""

    def limits(self, request: BuildRequest) -> Limits:
        """Prompts run in passes, and the KV cache is allocated whole."""
        engine = request.engine
        # Logits are float32; `calls` cuts prompts into passes by the same bound.
        rows = max(1, LOGITS_BYTES // (4 * engine.max_batch_size * request.shape.vocab_size))
        tokens = engine.max_batch_size * min(engine.max_seq_len, rows)
        return Limits(
            batch=engine.max_batch_size,
            seq_len=engine.max_seq_len + 1,  # the last position is for padding
            num_tokens=tokens,
            logit_rows=tokens,
            tokens_per_block=1,  # a layer's cache is one tensor, not blocks
            free_fraction=1.0,
        )

    def cached_tokens(self, request: BuildRequest) -> tuple[int | None, ...]:
        """Layers with a window keep every token too."""
        return all_tokens(request.shape)

    def activation_bytes(self, request: BuildRequest, num_tokens: int) -> int:
        """Tensors that PyTorch holds at once."""
        engine = request.engine
        return formulas.torch_activation_bytes(request.shape, engine.tp, engine.ep, num_tokens)

    def buffer_bytes(self, request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
        """Three float32 tables of logits, while they are scored."""
        return 3 * 4 * limits.logit_rows * request.shape.vocab_size if last_stage else 0

    def context_bytes(self, world_size: int) -> int:
        """The process with its libraries."""
        return formulas.PROCESS_BYTES

    def build_gpu_bytes(self, weights: int, activations: int) -> int:
        """No GPU is used."""
        return 0

    def head_copies(self, speculative: Speculative) -> int:
        """Each head once."""
        return 1

    def fp8_cache_beside(self, fmt: Format) -> bool:
        """An FP8 cache goes with any weights."""
        return True
