"""Memory of engines that TensorRT-LLM serves, whichever of its backends computes; pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.backend import memory_formulas as formulas
from pipeline.backend.build_request import BuildRequest
from pipeline.backend.engine_memory import Limits
from pipeline.checkpoint.slicing import padded_vocab

MAX_NUM_TOKENS = 8192
"""Default of trtllm-build and of the LLM API."""

TOKENS_PER_BLOCK = 64
"""Default of trtllm-build before its default became 32; the larger one wastes more."""

FREE_FRACTION = 0.9
"""Share of the memory that is left that both runtimes take for keys and values."""


def served_limits(request: BuildRequest, settings: Mapping[str, Any], *, gathers: bool) -> Limits:
    """The sizes of an engine with these resolved settings.

    `gathers`: it computes the logits of every token of a prompt; with speculative decoding the builder
    refuses that, and only proposed tokens have logits.
    """
    engine = request.engine
    # Built engines have these options at the top, the LLM API has them in a mapping.
    cache = {**settings, **(settings.get("kv_cache_config") or {})}
    drafted = request.speculative.max_draft_len if request.speculative else 0
    batch, seq_len = engine.max_batch_size, engine.max_seq_len + drafted
    block = int(_number(cache, "tokens_per_block", TOKENS_PER_BLOCK))
    most = int(_number(settings, "max_num_tokens", MAX_NUM_TOKENS))
    # A pass has room for every request's next tokens and for one whole block, whatever the options say.
    tokens = max(min(most, batch * seq_len), batch * (1 + drafted), min(block, seq_len))
    return Limits(
        batch=batch,
        seq_len=seq_len,
        num_tokens=tokens,
        logit_rows=tokens if gathers and not drafted else batch * (1 + drafted),
        tokens_per_block=block,
        free_fraction=_number(cache, "free_gpu_memory_fraction", FREE_FRACTION),
    )


def _number(settings: Mapping[str, Any], name: str, default: float) -> float:
    """An option where it is a number; what is none is left to us, or refused by the backend."""
    value = settings.get(name)
    return value if isinstance(value, int | float) and value > 0 else default


def buffer_bytes(request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
    """Runtime buffers and decoder; each stage works on a batch of its own, the last decodes them all."""
    sequences = limits.batch * request.engine.pp
    if not last_stage:
        return formulas.runtime_bytes(0, 0, sequences, limits.seq_len)
    vocab = padded_vocab(request.shape, request.engine.tp)
    # Whatever is gathered, each request needs a row to pick its next token from.
    rows = max(limits.logit_rows, limits.batch)
    runtime = formulas.runtime_bytes(rows, vocab, sequences, limits.seq_len)
    return runtime + formulas.decoder_bytes(sequences, vocab)


def context_bytes(world_size: int) -> int:
    """CUDA's context, and NCCL's buffers where ranks talk."""
    return formulas.CUDA_CONTEXT_BYTES + (formulas.NCCL_BYTES if world_size > 1 else 0)
