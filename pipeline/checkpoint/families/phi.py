"""Phi-3: one source linear holds query, key and value, another gate and up projection.

Naming trap: TensorRT-LLM's network (tensorrt_llm/models/phi3/model.py, 0.16 and 1.x) has no `mlp.gate`. Its
`mlp.fc` holds the up projection and then the gate projection, the halves that its `swiglu` expects; its
converter and ModelOpt's export swap them too. A rank holds its part of both.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoint.modules import Family, Linear, Module, Norm, Part
from pipeline.models.shape import ModelShape

QKV, GATE_UP = "self_attn.qkv_proj", "mlp.gate_up_proj"


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer."""
    hidden, inner, queries, keys = shape.hidden_size, shape.intermediate_size, shape.q_size, shape.kv_size
    whole = queries + 2 * keys
    qkv = (
        Part(QKV, queries, shape.num_heads, 0, whole),
        Part(QKV, keys, shape.num_kv_heads, queries, whole),
        Part(QKV, keys, shape.num_kv_heads, queries + keys, whole),
    )
    # The source tensor holds gate before up: up starts at `inner`, and the target order is swapped.
    up_gate = (Part(GATE_UP, inner, inner, inner, 2 * inner), Part(GATE_UP, inner, inner, 0, 2 * inner))
    return (
        Norm("input_layernorm", "input_layernorm", hidden),
        Linear("attention.qkv", "column", qkv, hidden),
        Linear("attention.dense", "row", (Part("self_attn.o_proj", hidden, hidden),), queries),
        Norm("post_layernorm", "post_attention_layernorm", hidden),
        Linear("mlp.fc", "column", up_gate, hidden),
        Linear("mlp.proj", "row", (Part("mlp.down_proj", hidden, hidden),), inner),
    )


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's Phi3Config adds; a factor per channel has fields of its own there."""
    scaling = shape.rope_scaling
    if scaling is None:
        return {"hidden_act": "swiglu"}
    return {
        "hidden_act": "swiglu",
        "position_embedding_type": "long_rope",
        "rotary_scaling": None,
        "original_max_position_embeddings": scaling["original_max_position_embeddings"],
        "longrope_scaling_short_factors": scaling["short_factor"],
        "longrope_scaling_long_factors": scaling["long_factor"],
    }


FAMILY = Family(("Phi3ForCausalLM",), "phi3", layer, (), config)
