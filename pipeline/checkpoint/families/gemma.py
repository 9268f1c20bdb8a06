"""Gemma 2 and Gemma 3 (text): norms of one plus their weight, before and after both blocks.

TensorRT-LLM multiplies by a norm's weight as it is: its converter (tensorrt_llm/models/gemma/convert.py, 1.x)
and ModelOpt's export add the one, in float32, and round the sum to the model's dtype. The embedding is stored
as it is, and scaled by the square root of `hidden_size` in the network. Naming trap: TensorRT-LLM's
`post_layernorm` is the norm after the attention here, not the one before the MLP.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.checkpoint.families import llama
from pipeline.checkpoint.modules import Family, Module, Norm
from pipeline.models.config_families.gemma_config import window_pattern
from pipeline.models.shape import ModelShape


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer: Llama's, with norms around both blocks and over heads."""
    hidden = shape.hidden_size
    around = (
        Norm("pre_feedforward_layernorm", "pre_feedforward_layernorm", hidden),
        Norm("post_feedforward_layernorm", "post_feedforward_layernorm", hidden),
    )
    heads = (
        Norm("attention.q_layernorm", "self_attn.q_norm", shape.head_dim),
        Norm("attention.k_layernorm", "self_attn.k_norm", shape.head_dim),
    )
    modules = (*llama.layer(shape), *around, *(heads if shape.qk_norm else ()))
    return tuple(replace(each, plus_one=True) if isinstance(each, Norm) else each for each in modules)


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's GemmaConfig adds.

    Its Gemma 2 has no field for windows: they are given to its runtime, as `max_attention_window`.
    """
    assert shape.query_scale is not None
    local = {
        "_sliding_window_pattern": window_pattern(shape.windows),
        "rope_local_base_freq": shape.rope_local_theta,
    }
    return {
        "hidden_act": "gelu",  # TensorRT-LLM's is the tanh approximation
        "attn_bias": False,
        "mlp_bias": False,
        "inter_layernorms": True,
        # The shape keeps the factor; GemmaConfig wants the integer it was the inverse root of.
        "query_pre_attn_scalar": round(shape.query_scale**-2),
        "final_logit_softcapping": shape.logit_softcap,
        "attn_logit_softcapping": shape.attention_softcap,
        **(local if shape.rope_local_theta is not None else {}),
    }


FAMILY = Family(("Gemma2ForCausalLM", "Gemma3ForCausalLM"), "gemma", layer, llama.SHARED, config)
