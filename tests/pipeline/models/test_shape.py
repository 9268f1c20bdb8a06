"""Reading `config.json` of transformers 4 and 5."""

from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape, readers

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
"""The published `config.json` of Llama-3.1-8B-Instruct, without the fields nobody reads."""


def named(model_type: str) -> dict[str, Any]:
    """What a config.json says of its class."""
    return {"architectures": [f"{model_type.capitalize()}ForCausalLM"], "model_type": model_type}


def without(config: dict[str, Any], *keys):
    return {key: value for key, value in config.items() if key not in keys}


def test_transformers_4_and_5_configs_give_the_same_shape():
    rope: dict[str, Any] = {"rope_theta": 500000.0, **LLAMA["rope_scaling"]}
    newer = without(LLAMA, "torch_dtype", "rope_theta", "rope_scaling") | {
        "dtype": "bfloat16",
        "rope_parameters": rope,
        "attention_bias": False,
        "hidden_act": "silu",
    }
    assert read_shape(newer) == read_shape(LLAMA)


def test_llama_3_keeps_its_rotary_base_and_scaling():
    shape = read_shape(LLAMA)
    assert shape.rope_theta == 500000.0
    assert shape.rope_scaling == LLAMA["rope_scaling"]
    assert (shape.head_dim, shape.q_size, shape.kv_size) == (128, 4096, 1024)


def test_older_type_key_of_rope_scaling_is_normalised():
    shape = read_shape(LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}})
    assert shape.rope_scaling == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize("given", [None, {"rope_type": "default", "rope_theta": 10000.0}])
def test_default_rope_is_no_scaling(given: dict[str, Any] | None):
    config = without(LLAMA, "rope_scaling", "rope_theta") | {"rope_parameters": given}
    assert (read_shape(config).rope_theta, read_shape(config).rope_scaling) == (10000.0, None)


@pytest.mark.parametrize(
    ("model_type", "bias", "norm", "kv_heads", "head_dim"),
    [
        ("llama", False, False, 32, 128),
        ("mistral", False, False, 8, 128),
        ("qwen2", True, False, 32, 128),
        ("qwen3", False, True, 32, 128),
    ],
)
def test_each_family_fixes_what_its_config_leaves_out(
    model_type: str, bias: bool, norm: bool, kv_heads: int, head_dim: int
):
    shape = read_shape(without(LLAMA, "num_key_value_heads") | named(model_type))
    assert (shape.qkv_bias, shape.qk_norm) == (bias, norm)
    assert (shape.num_kv_heads, shape.head_dim) == (kv_heads, head_dim)


def test_qwen3_heads_need_not_add_up_to_the_hidden_size():
    shape = read_shape(LLAMA | named("qwen3") | {"hidden_size": 1024})
    assert (shape.head_dim, shape.q_size) == (128, 4096)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM.*Qwen3ForCausalLM"),
        ({"architectures": None}, "architectures is null"),
        (
            {"initializer_range": None, "use_cache": None},
            "initializer_range is null.*\\n.*use_cache is null; it must be true",
        ),
        (
            {"pad_token_id": 320, "vocab_size": 320},
            "pad_token_id is 320 and vocab_size is 320; it must be null or",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types names 1 layers of kinds .*; it must name"),
        ({"attention_bias": True}, "attention_bias true"),
        ({"mlp_bias": True}, "mlp_bias true"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5"),
        ({"rope_scaling": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, r"0\.25"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "'longrope'.*llama3"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks low_freq_factor"),
        ({"torch_dtype": "float8"}, "'float8'"),
        ({"torch_dtype": None}, "dtype is null"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is '32'"),
        ({"num_attention_heads": 24}, "num_attention_heads 24"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5 does not divide"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_value(change: dict[str, Any], said: str):
    with pytest.raises(SourceError, match=said):
        read_shape(LLAMA | change)


@pytest.mark.parametrize(("field", "said"), [("architectures", "architectures"), ("torch_dtype", "dtype")])
def test_what_is_left_out_is_said_to_be_missing(field: str, said: str):
    with pytest.raises(SourceError, match=f"config.json: {said} is missing; it must be"):
        read_shape(without(LLAMA, field))


def test_mistral_has_its_window_in_every_layer():
    mistral = LLAMA | named("mistral") | {"sliding_window": 4096}
    assert read_shape(mistral).sliding_window == 4096
    assert read_shape(mistral | {"sliding_window": None}).sliding_window is None


@pytest.mark.parametrize(("switch", "first", "window"), [(False, 0, None), (True, 32, None), (True, 0, 4096)])
def test_qwen_window_follows_its_switch(switch: bool, first: int, window: int | None):
    qwen = LLAMA | named("qwen2") | {"sliding_window": 4096}
    shape = read_shape(qwen | {"use_sliding_window": switch, "max_window_layers": first})
    assert shape.sliding_window == window


def test_qwen_has_windows_from_a_layer_on():
    qwen = LLAMA | named("qwen2") | {"sliding_window": 4096, "use_sliding_window": True}
    assert read_shape(qwen | {"max_window_layers": 28}).windows == (None,) * 28 + (4096,) * 4
    kinds = ["sliding_attention"] + ["full_attention"] * 31
    assert read_shape(qwen | {"layer_types": kinds}).windows == (4096,) + (None,) * 31


def test_shapes_and_layouts_support_the_same_architectures():
    from pipeline.checkpoint.families import family, names

    assert names() == ["gemma", "llama", "mixtral", "phi", "qwen", "qwen2_moe"]
    assert all(architecture in family(architecture).architectures for architecture in readers())
    with pytest.raises(SourceError, match=r"'Nope' is not supported; supported: .*LlamaForCausalLM"):
        family("Nope")
