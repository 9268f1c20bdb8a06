"""TensorRT-LLM's `config.json` for a sharded checkpoint; pure.

Written from the model's own shape, so that the rotary base and scaling cannot get lost. Beyond the fields
that TensorRT-LLM knows it has `sliding_window`, `layer_windows`, `tie_word_embeddings`, `embedding_scale` and
`norms_round_last`, for engines that read nothing else.
"""

from typing import Any

from pipeline.checkpoint.families import family
from pipeline.checkpoint.loadable import AT_BUILD, UNTOUCHED
from pipeline.checkpoint.modules import Linear
from pipeline.models.shape import ModelShape
from recipes.formats import Format
from recipes.precision import Precision

LAYOUT_VERSION = 3
"""Raised when files, names or fields change; part of the step's key."""

KV_ALGORITHMS = {"auto": None, "fp8": "FP8", "int8": "INT8"}
"""The recipe's type of KV cache -> TensorRT-LLM's name."""

GROUPWISE = "W4A16_AWQ"
"""TensorRT-LLM's name of int4 weights with a scale per block, smoothed or not.

Its W4A16 has one scale per channel.
"""
FINAL_NORM = "*ln_f"
"""TensorRT-LLM's per-token formats replace norms too; some versions spare the final one only if told to."""


def engine_config(
    shape: ModelShape, precision: Precision, tp: int, pp: int, kv_cache: str = "auto", ep: int = 1
) -> dict[str, Any]:
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
        # False also for tied models: the rank files hold the head as a table of its own (slicing.TIED).
        "share_embedding_table": False,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_pct": 1.0,
        "rotary_base": shape.rope_theta,
        "rotary_scaling": _build_rotary_scaling(shape),
        "sliding_window": shape.sliding_window,
        "layer_windows": list(shape.windows),
        "embedding_scale": shape.embedding_scale,
        "norms_round_last": shape.norm_offset,
        "qk_layernorm": shape.qk_norm,
        "decoder": kin.decoder,
        "rmsnorm": True,
        "bias": False,
        "lm_head_bias": False,
        "residual_mlp": False,
        **kin.config(shape),
        "mapping": _build_mapping(shape, tp, pp, ep),
        "quantization": _build_quantization(shape, precision, kv_cache),
    }


def _build_mapping(shape: ModelShape, tp: int, pp: int, ep: int) -> dict[str, int]:
    """Builds TensorRT-LLM's Mapping; without experts their layout is left out, as ModelOpt does."""
    mapping = {"world_size": tp * pp, "tp_size": tp, "pp_size": pp}
    return mapping if shape.experts is None else {**mapping, "moe_tp_size": tp // ep, "moe_ep_size": ep}


def _build_rotary_scaling(shape: ModelShape) -> dict[str, Any] | None:
    """TensorRT-LLM asks for `type`, newer versions for `rope_type`: both are given."""
    if shape.rope_scaling is None:
        return None
    return {"type": shape.rope_scaling["rope_type"], **shape.rope_scaling}


def quant_cfg(shape: ModelShape, precision: Precision, kv_cache: str = "auto") -> dict[str, Any] | None:
    """Builds `quant_cfg.json`, TensorRT-LLM's LayerQuantConfig; None where all quantized linears are alike.

    Layers have their numbers in the whole model, whatever the pipeline stage; linears that stay in the source
    dtype are absent.
    """
    layers = {
        name: _build_block(fmt) for name, fmt in _list_linears(shape, precision).items() if fmt.quant_algo
    }
    if all(block == next(iter(layers.values())) for block in layers.values()):
        return None
    return {
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": KV_ALGORITHMS[kv_cache],
        "quantized_layers": layers,
    }


def _build_quantization(shape: ModelShape, precision: Precision, kv_cache: str) -> dict[str, Any]:
    """Builds TensorRT-LLM's QuantConfig; an unknown key in it would be refused there."""
    # With quant_cfg.json present, config.json may hold these two fields only; the rest is per layer there.
    if mixed := quant_cfg(shape, precision, kv_cache):
        return {name: mixed[name] for name in ("quant_algo", "kv_cache_quant_algo")}
    linears = _list_linears(shape, precision)
    quantized = next((fmt for fmt in linears.values() if fmt.quant_algo), None)
    block: dict[str, Any] = {"quant_algo": None, "kv_cache_quant_algo": KV_ALGORITHMS[kv_cache]}
    if quantized is None:
        return block
    unquantized = [name for name, fmt in linears.items() if not fmt.quant_algo]
    # `dynamic` input scales are the per-token formats.
    unquantized += [FINAL_NORM] if quantized.input_scale == "dynamic" else []
    unquantized += family(shape.architecture).left_in_source
    if quantized.name in AT_BUILD:  # its weights are compared by their own names, its modules by theirs
        return (
            block
            | _build_block(quantized)
            | {"exclude_modules": [*unquantized, *(f"{name}.weight" for name in unquantized), *UNTOUCHED]}
        )
    return block | _build_block(quantized) | {"exclude_modules": [*unquantized, "lm_head"]}


def _build_block(fmt: Format) -> dict[str, Any]:
    """What is said of a quantized linear; int4 blocks have one name, and say whether inputs are smoothed."""
    if not fmt.block_size:
        return {"quant_algo": fmt.quant_algo}
    # Without smoothing the algorithm is the same kernel with `pre_quant_scale` false.
    algorithm = fmt.quant_algo if fmt.smoothed else GROUPWISE
    group = {"group_size": fmt.block_size, "has_zero_point": False, "pre_quant_scale": fmt.smoothed}
    return {"quant_algo": algorithm, **group}


def _list_linears(shape: ModelShape, precision: Precision) -> dict[str, Format]:
    """The format of every local linear, by its name with the layer's number in the whole model."""
    kin = family(shape.architecture)
    return {
        f"transformer.layers.{layer}.{module.local}": precision.of(
            f"{kin.layers}.{layer}.{module.sources[0]}"
        )
        for layer in range(shape.num_layers)
        for module in kin.layer(shape)
        if isinstance(module, Linear)
    }
