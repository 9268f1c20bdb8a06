"""Attention windows as settings of TensorRT-LLM's runtimes; pure.

Engines do not store their windows. The runtime gets one length per layer (`max_attention_window` of
KvCacheConfig), cuts what is longer than the engine's sequences with a warning, repeats a list that is shorter
than the layers, and lets every layer see everything where the setting is absent
(`cpp/tensorrt_llm/batch_manager/trtGptModelInflightBatching.cpp`, read about 0.19 and 1.0; never executed).
"""

from collections.abc import Sequence


def attention_windows(windows: Sequence[int | None], max_seq_len: int) -> list[int] | None:
    """Positions that each layer sees in sequences of `max_seq_len`; None where every layer sees them all."""
    seen = [max_seq_len if window is None else min(window, max_seq_len) for window in windows]
    return seen if min(seen, default=max_seq_len) < max_seq_len else None
