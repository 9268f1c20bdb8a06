"""Qwen2 (query, key and value biases) and Qwen3 (norms over each query and key head)."""

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoint.families import llama
from pipeline.checkpoint.modules import Family, Module, Norm
from pipeline.models.shape import ModelShape


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer: Llama's, and the norms over query and key heads."""
    norms = (
        Norm("attention.q_layernorm", "self_attn.q_norm", shape.head_dim),
        Norm("attention.k_layernorm", "self_attn.k_norm", shape.head_dim),
    )
    return (*llama.layer(shape), *(norms if shape.qk_norm else ()))


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's QWenConfig adds; it cannot be built without `qwen_type` and `seq_length`.

    8192 is the `seq_length` that its own converter writes for models that name none. `use_logn_attn` is its
    default, said because models with Medusa's heads are read as LLaMAConfig, without it, and built as Qwen.
    """
    return {
        "attn_bias": shape.qkv_bias,
        "mlp_bias": False,
        "qwen_type": shape.model_type,
        "seq_length": 8192,
        "use_logn_attn": False,
    }


FAMILY = Family(("Qwen2ForCausalLM", "Qwen3ForCausalLM"), "qwen", layer, llama.SHARED, config)
