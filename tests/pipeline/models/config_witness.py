"""A model as the pinned transformers builds it of a config.json: what our reading of the file is compared with."""

import json
import math
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.models.config_fields import WHOLE, WINDOWED

SIZES = {
    "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 32, "intermediate_size": 96,
    "vocab_size": 160, "dtype": "bfloat16", "pad_token_id": None,
}  # fmt: skip
EXPERTS = {
    "MixtralForCausalLM": {"num_local_experts": 4},
    "Qwen2MoeForCausalLM": {
        "num_experts": 6, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48,
    },
}  # fmt: skip

SCALED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
        "original_max_position_embeddings",
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
}  # fmt: skip
"""Fields of a rotary block that `modeling_rope_utils` of transformers 5.14 computes with, by type."""


class Recording(dict[str, Any]):
    """A config.json that notes which of its fields are read."""

    def __init__(self, fields) -> None:
        super().__init__(fields)
        self.read: set[str] = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key) -> bool:
        self.read.add(key)
        return super().__contains__(key)


def bare(architecture) -> dict[str, Any]:
    """No more than what must be there."""
    model_type = getattr(transformers, architecture).config_class.model_type
    return {
        "architectures": [architecture],
        "model_type": model_type,
        **SIZES,
        **EXPERTS.get(architecture, {}),
    }


def built(config, directory) -> dict[str, Any]:
    """The fields of a ModelShape that transformers' model has; what it raises is raised."""
    (directory / "config.json").write_text(json.dumps(config))
    read = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read).model
    attention, embedding = model.layers[0].self_attn, model.embed_tokens
    return {
        "model_type": read.model_type,
        "dtype": str(read.dtype).removeprefix("torch."),
        "hidden_size": embedding.weight.shape[1],
        "num_layers": len(model.layers),
        "num_heads": read.num_attention_heads,
        "num_kv_heads": read.num_key_value_heads,
        "head_dim": attention.head_dim,
        "vocab_size": embedding.weight.shape[0],
        "max_position_embeddings": model.rotary_emb.max_seq_len_cached,
        "rms_norm_eps": getattr(model.norm, "variance_epsilon", None) or model.norm.eps,
        "tie_word_embeddings": read.tie_word_embeddings,
        "qkv_bias": getattr(getattr(attention, "q_proj", None), "bias", None) is not None,
        "qk_norm": hasattr(attention, "q_norm"),
        "windows": tuple(_window(read, number, layer.self_attn) for number, layer in enumerate(model.layers)),
        "embedding_scale": getattr(embedding, "scalar_embed_scale", 1.0),
        "query_scale": attention.scaling,
        "attention_softcap": getattr(attention, "attn_logit_softcapping", None),
        "logit_softcap": getattr(read, "final_logit_softcapping", None),
        **_rotary(read),
        **_mlp(read, model.layers),
    }


def _window(read, number, attention):
    """A layer's window; classes that have one for all layers keep it in the configuration."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    kinds = getattr(read, "layer_types", None)
    whole = kinds is not None and kinds[number] == WHOLE
    return None if whole or read.model_type == "llama" else read.sliding_window


def _rotary(read) -> dict[str, Any]:
    read.standardize_rope_params()  # as each model does before it computes
    block, local = read.rope_parameters, None
    if read.model_type == "gemma3_text":
        local = block[WINDOWED]["rope_theta"]
        assert block[WINDOWED]["rope_type"] == "default"
        block = block[WHOLE]
    kind = block["rope_type"]
    kept = {key: block[key] for key in SCALED.get(kind, ()) if block.get(key) is not None}
    assert math.isfinite(block["rope_theta"])
    return {
        "rope_theta": block["rope_theta"],
        "rope_scaling": {"rope_type": kind, **kept} if kind != "default" else None,
        "rope_local_theta": local,
    }


def _mlp(read, layers) -> dict[str, Any]:
    mlp = layers[0].mlp
    if not hasattr(mlp, "experts"):
        return {"intermediate_size": mlp.down_proj.in_features, "experts": None}
    assert all(hasattr(layer.mlp, "experts") for layer in layers)
    shared = getattr(mlp, "shared_expert", None)
    inner = mlp.experts.gate_up_proj.shape[1] // 2
    experts = {
        "count": mlp.experts.gate_up_proj.shape[0],
        "per_token": mlp.gate.top_k,
        "intermediate_size": inner,
        "shared_intermediate_size": shared.gate_proj.out_features if shared is not None else 0,
        "normalized": getattr(mlp.gate, "norm_topk_prob", True),
    }
    return {"intermediate_size": inner, "experts": experts}
