"""TensorRT-LLM's `config.json` for a sharded checkpoint; pure.

Written from the model's own shape, so that the rotary base and scaling cannot get lost. Beyond the fields
that TensorRT-LLM knows it has `sliding_window` and `tie_word_embeddings`, for engines that read nothing else.
"""

from typing import Any

from pipeline.checkpoint.families import family
from pipeline.shape import ModelShape
from recipes.formats import FORMATS, Format

LAYOUT_VERSION = 1
"""Raised when files, names or fields change; part of the step's key."""


def engine_config(shape: ModelShape, format_name: str, tp: int, pp: int) -> dict[str, Any]:
    """Builds TensorRT-LLM's PretrainedConfig.

    `logits_dtype` is TensorRT-LLM's default. ModelOpt's export says float16, whose range logits can leave.
    """
    kin = family(shape.architecture)
    return {
        "producer": {"name": "enginery", "layout_version": LAYOUT_VERSION},
        "architecture": shape.architecture,
        "dtype": shape.dtype,
        "logits_dtype": "float32",
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "hidden_size": shape.hidden_size,
        "head_size": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "norm_epsilon": shape.rms_norm_eps,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "hidden_act": shape.hidden_act,
        "use_parallel_embedding": True,
        "embedding_sharding_dim": 0,
        "share_embedding_table": False,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_pct": 1.0,
        "rotary_base": shape.rope_theta,
        "rotary_scaling": _rotary_scaling(shape),
        "sliding_window": shape.sliding_window,
        "qk_layernorm": shape.qk_norm,
        "decoder": kin.decoder,
        "rmsnorm": True,
        "bias": False,
        "lm_head_bias": False,
        "residual_mlp": False,
        **kin.config(shape),
        "mapping": {"world_size": tp * pp, "tp_size": tp, "pp_size": pp},
        "quantization": _quantization(FORMATS[format_name]),
    }


def _rotary_scaling(shape: ModelShape) -> dict[str, Any] | None:
    """TensorRT-LLM asks for `type`, newer versions for `rope_type`: both are given."""
    if shape.rope_scaling is None:
        return None
    return {"type": shape.rope_scaling["rope_type"], **shape.rope_scaling}


def _quantization(fmt: Format) -> dict[str, Any]:
    """Builds TensorRT-LLM's QuantConfig; an unknown key in it would be refused there."""
    block: dict[str, Any] = {"quant_algo": fmt.quant_algo or None, "kv_cache_quant_algo": None}
    if fmt.quant_algo:
        block["exclude_modules"] = ["lm_head"]
    if fmt.block_size:
        block |= {"group_size": fmt.block_size, "has_zero_point": False, "pre_quant_scale": fmt.smoothed}
    return block
