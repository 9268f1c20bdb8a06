"""Configurations of every supported family, by `model_type`."""

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Those of the classes are beyond a small vocabulary."""

CONFIGS = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma2": lambda **sizes: Gemma2Config(**sizes, **SPECIAL_TOKENS),
    "gemma3_text": lambda **sizes: Gemma3TextConfig(**sizes, **SPECIAL_TOKENS),
    "phi3": lambda **sizes: Phi3Config(**sizes, **SPECIAL_TOKENS),
}
