"""Tiny source checkpoints, and the converter's sharded ones of them, unquantized."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from tests.jobs import build_sharded as convert

ROPE = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
SIZES = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 251, "max_position_embeddings": 64,
}  # fmt: skip
WINDOW = {"sliding_window": 8}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""The special tokens of some classes are beyond this vocabulary."""
GEMMA = {**TOKENS, **WINDOW, "query_pre_attn_scalar": 48}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 5000.0, "original_max_position_embeddings": 32,
    "short_factor": [1 + pair / 16 for pair in range(32)], "long_factor": [9.0] * 32,
}  # fmt: skip
CONFIGS = {
    "llama": lambda **more: LlamaConfig(**{**SIZES, "rope_parameters": ROPE, **more}),
    "mistral": lambda **more: MistralConfig(**{**SIZES, **WINDOW, **more}),
    "qwen2": lambda **more: Qwen2Config(**{**SIZES, **more}),
    "qwen2_windows": lambda **more: Qwen2Config(
        **{**SIZES, **WINDOW, "use_sliding_window": True, "max_window_layers": 1, **more}
    ),
    "qwen3": lambda **more: Qwen3Config(**{**SIZES, **more}),
    "gemma2": lambda **more: Gemma2Config(
        **{**SIZES, **GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, **more}
    ),
    "gemma3": lambda **more: Gemma3TextConfig(
        **{**SIZES, **GEMMA, "sliding_window_pattern": 2, **more},
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    ),
    "phi3": lambda **more: Phi3Config(**{**SIZES, **TOKENS, **more}),
    "phi3_longrope": lambda **more: Phi3Config(
        **{**SIZES, **TOKENS, **more}, rope_parameters=dict(LONGROPE), original_max_position_embeddings=32
    ),
}


def source(directory: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **sizes: int) -> Path:
    """Writes a random model whose logits vary; returns its directory."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family](**sizes), dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.mul_(3)
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    return directory


def shard(checkpoint: Path, tp: int, pp: int, out: Path, fmt: str = "none") -> Path:
    """Writes the sharded checkpoint of a source or quantized checkpoint."""
    out.mkdir()
    params = {"tp": tp, "pp": pp, "format": fmt, "layout_version": LAYOUT_VERSION}
    convert({"params": params, "places": {}, "inputs": {"checkpoint": str(checkpoint)}}, out, lambda *_: None)
    return out
