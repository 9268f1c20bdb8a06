"""TensorRT-LLM's `config.json`: the fields that other converters lose."""

from typing import Any

import pytest

from pipeline.checkpoint.rank_layout import engine_config, quant_cfg
from pipeline.models.config_json import read_shape
from recipes.precision import Precision

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 101,
    "max_position_embeddings": 512,
    "rope_theta": 500000.0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 8192


def written(fmt="none", tp: int = 1, pp=1, kv_cache: str = "auto", **change):
    return engine_config(read_shape(CONFIG | change), Precision.parse(fmt), tp, pp, kv_cache)


def test_rotary_base_and_scaling_survive():
    config = written(rope_scaling=LLAMA3)
    assert config["rotary_base"] == 500000.0
    assert config["rotary_scaling"] == {"type": "llama3", **LLAMA3}
    assert written()["rotary_scaling"] is None


def test_qwen_has_the_fields_without_which_it_cannot_be_built():
    config = written(architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2)
    assert (config["qwen_type"], config["seq_length"], config["attn_bias"]) == ("qwen2", 8192, True)
    assert config["use_logn_attn"] is False  # Medusa's config class has no default for it
    config = written(architectures=["Qwen3ForCausalLM"], model_type="qwen3")
    assert (config["qwen_type"], config["attn_bias"], config["qk_layernorm"]) == ("qwen3", False, True)
    assert config["head_size"] == 128


def test_vocabulary_keeps_its_own_size():
    assert written(tp=2)["vocab_size"] == 101


def test_mapping_is_the_layout():
    assert written(tp=2, pp=2)["mapping"] == {"world_size": 4, "tp_size": 2, "pp_size": 2}


@pytest.mark.parametrize(
    ("fmt", "block"),
    [
        ("none", {"quant_algo": None, "kv_cache_quant_algo": None}),
        ("fp8", {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}),
        (
            "int4_awq",
            {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
            | {"group_size": 128, "has_zero_point": False, "pre_quant_scale": True},
        ),
        (
            "w4a8_awq",
            {"quant_algo": "W4A8_AWQ", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
            | {"group_size": 128, "has_zero_point": False, "pre_quant_scale": True},
        ),
        (
            "int4_wo",
            {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
            | {"group_size": 128, "has_zero_point": False, "pre_quant_scale": False},
        ),
        (
            "fp8_rowwise",
            {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "kv_cache_quant_algo": None}
            | {"exclude_modules": ["*ln_f", "lm_head"]},
        ),
        (
            {"default": "fp8", "except": {"model.layers.1.mlp.down_proj": "none"}},
            {"quant_algo": "FP8", "kv_cache_quant_algo": None}
            | {"exclude_modules": ["transformer.layers.1.mlp.proj", "lm_head"]},
        ),
    ],
)
def test_quantization_block_has_only_keys_that_tensorrt_llm_knows(fmt, block: dict[str, Any]):
    assert written(fmt)["quantization"] == block


MIXED = {"default": "none", "except": {"*.self_attn.*": "int8_sq", "model.layers.1.mlp.down_proj": "int4_wo"}}


@pytest.mark.parametrize(("kv_cache", "name"), [("auto", None), ("fp8", "FP8"), ("int8", "INT8")])
def test_a_mixture_names_its_quantized_linears_by_their_number_in_the_model(kv_cache: str, name: str | None):
    described = quant_cfg(read_shape(CONFIG), Precision.parse(MIXED), kv_cache)
    group = {"group_size": 128, "has_zero_point": False, "pre_quant_scale": False}
    smoothed = {"quant_algo": "W8A8_SQ_PER_CHANNEL"}
    assert described == {
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": name,
        "quantized_layers": {
            "transformer.layers.0.attention.qkv": smoothed,
            "transformer.layers.0.attention.dense": smoothed,
            "transformer.layers.1.attention.qkv": smoothed,
            "transformer.layers.1.attention.dense": smoothed,
            "transformer.layers.1.mlp.proj": {"quant_algo": "W4A16_AWQ", **group},
        },
    }
    config = written(MIXED, pp=2, kv_cache=kv_cache)
    assert config["quantization"] == {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": name}


@pytest.mark.parametrize("fmt", ["none", "fp8", {"default": "none", "except": {"*.down_proj": "fp8"}}])
def test_one_format_needs_no_file_of_its_own(fmt):
    assert quant_cfg(read_shape(CONFIG), Precision.parse(fmt)) is None


def test_the_cache_may_be_all_that_is_quantized():
    assert written(kv_cache="int8")["quantization"] == {"quant_algo": None, "kv_cache_quant_algo": "INT8"}
