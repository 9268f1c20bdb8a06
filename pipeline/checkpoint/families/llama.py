"""Llama and Mistral.

Naming trap: TensorRT-LLM's `mlp.fc` is `gate_proj`, before the activation; its `mlp.gate` is `up_proj`.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoint.modules import Family, Linear, Module, Norm, Part
from pipeline.models.shape import ModelShape

SHARED = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("mlp.gate_proj", "mlp.up_proj"),
)


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer with gated MLP and grouped-query attention."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    qkv = (
        Part("self_attn.q_proj", shape.q_size, shape.num_heads),
        Part("self_attn.k_proj", shape.kv_size, shape.num_kv_heads),
        Part("self_attn.v_proj", shape.kv_size, shape.num_kv_heads),
    )
    return (
        Norm("input_layernorm", "input_layernorm", hidden),
        Linear("attention.qkv", "column", qkv, hidden, shape.qkv_bias),
        Linear("attention.dense", "row", (Part("self_attn.o_proj", hidden, hidden),), shape.q_size),
        Norm("post_layernorm", "post_attention_layernorm", hidden),
        Linear("mlp.fc", "column", (Part("mlp.gate_proj", inner, inner),), hidden),
        Linear("mlp.gate", "column", (Part("mlp.up_proj", inner, inner),), hidden),
        Linear("mlp.proj", "row", (Part("mlp.down_proj", hidden, hidden),), inner),
    )


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's LLaMAConfig adds."""
    return {"attn_bias": shape.qkv_bias, "mlp_bias": False}


FAMILY = Family(("LlamaForCausalLM", "MistralForCausalLM"), "llama", layer, SHARED, config)
