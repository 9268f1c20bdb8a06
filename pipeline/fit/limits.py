"""The sizes that decide how much memory an engine takes, as its builder will see them; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import engines
from pipeline.backend.build_request import Wanted
from pipeline.checkpoint.loadable import numbers

MAX_NUM_TOKENS = 8192
"""Default of trtllm-build and of the LLM API."""

TOKENS_PER_BLOCK = 64
"""Default of trtllm-build before its default became 32; the larger one wastes more."""

FREE_FRACTION = 0.9
"""Share of the memory that is left that both runtimes take for keys and values."""

LOGITS_BYTES = 256 << 20
"""Most that backend aoti lets the logits of one pass take."""

WINDOW_POOLS = (1, 0)
"""First version of TensorRT-LLM that surely has a pool per length of window; those of 0.1x have one for all
layers (TensorRT-LLM issue 2912)."""


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


def limits(wanted: Wanted) -> Limits:
    """The sizes of the engine, with what its backend makes of its options.

    A tensorrt engine computes the logits of every token, because the gate scores the very engine that is
    published; with speculative decoding the builder refuses that, and only proposed tokens have logits.
    """
    engine = wanted.engine
    if engine.backend == "aoti":
        return _on_host(wanted)
    given = engines.backend(engine.backend).settings(wanted)
    cache = {**given, **(given.get("kv_cache_config") or {})}
    drafted = wanted.speculative.max_draft_len if wanted.speculative else 0
    batch, seq_len = engine.max_batch_size, engine.max_seq_len + drafted
    block = _number(cache, "tokens_per_block", TOKENS_PER_BLOCK)
    asked = int(_number(given, "max_num_tokens", MAX_NUM_TOKENS))
    tokens = max(min(asked, batch * seq_len), batch * (1 + drafted), min(int(block), seq_len))
    gathered = given.get("gather_context_logits", engine.backend == "tensorrt") and not drafted
    return Limits(
        batch=batch,
        seq_len=seq_len,
        num_tokens=tokens,
        logit_rows=tokens if gathered else batch * (1 + drafted),
        tokens_per_block=int(block),
        free_fraction=_number(cache, "free_gpu_memory_fraction", FREE_FRACTION),
    )


def held(wanted: Wanted) -> tuple[int | None, ...]:
    """Tokens of a request that each layer's cache holds at most; None: all.

    Only TensorRT engines are told the windows, and they save memory where each length has a pool of its own.
    """
    windows, chain = wanted.shape.windows, wanted.toolchain
    if wanted.engine.backend != "tensorrt":
        return (None,) * len(windows)
    if numbers(chain.version if chain is not None else "") >= WINDOW_POOLS:
        return windows
    widths = [window for window in windows if window is not None]
    return (max(widths) if len(widths) == len(windows) else None,) * len(windows)


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    """An option where it is a number; what is none is left to us, or refused by the backend."""
    value = given.get(name)
    return value if isinstance(value, int | float) and value > 0 else default


def _on_host(wanted: Wanted) -> Limits:
    """The sizes of backend aoti, which runs prompts in passes and allocates the KV cache whole."""
    engine = wanted.engine
    rows = max(1, LOGITS_BYTES // (4 * engine.max_batch_size * wanted.shape.vocab_size))
    tokens = engine.max_batch_size * min(engine.max_seq_len, rows)
    return Limits(
        batch=engine.max_batch_size,
        seq_len=engine.max_seq_len + 1,
        num_tokens=tokens,
        logit_rows=tokens,
        tokens_per_block=1,
        free_fraction=1.0,
    )
