"""Reading `config.json` of Gemma 2, Gemma 3 (text) and Phi-3."""

import copy
from typing import Any

import pytest
import transformers

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape

GEMMA_3 = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "torch_dtype": "bfloat16",
    "attention_bias": False, "attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
    "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
    "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
    "sliding_window_pattern": 6, "vocab_size": 262144,
}  # fmt: skip
"""The published `config.json` of gemma-3-1b-it, without the fields nobody reads."""

PHI: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": "bfloat16", "hidden_act": "silu",
    "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144,
    "rope_scaling": {"long_factor": [2.0] * 48, "short_factor": [1.0] * 48, "type": "longrope"},
    "tie_word_embeddings": False, "vocab_size": 32064,
}  # fmt: skip
"""The published `config.json` of Phi-3.5-mini-instruct, with simpler factors."""


def test_gemma_3_has_windows_in_five_of_six_layers_with_a_rotary_base_of_their_own():
    shape = read_shape(GEMMA_3)
    assert shape.windows == ((512,) * 5 + (None,)) * 4 + (512,) * 2
    assert (shape.rope_theta, shape.rope_local_theta, shape.rope_scaling) == (1e6, 1e4, None)
    assert (shape.norm_offset, shape.sandwich_norms, shape.qk_norm) == (True, True, True)
    assert (shape.embedding_scale, shape.query_scale) == (1152**0.5, 1 / 16)
    assert shape.tie_word_embeddings
    assert (shape.attention_softcap, shape.logit_softcap) == (None, None)
    assert not shape.folds_smoothing


def test_gemma_3_of_transformers_5_scales_the_whole_layers_only():
    scaled = {"rope_type": "linear", "factor": 8.0}
    older = GEMMA_3 | {"rope_scaling": scaled}
    newer = {key: value for key, value in older.items() if not key.startswith("rope_")} | {
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, **scaled},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
            "rope_theta": None,
            "rope_type": "default",
        }
    }
    assert read_shape(newer) == read_shape(older)
    assert read_shape(newer).rope_scaling == scaled


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "vision towers are not built"),
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention true"),
        ({"attention_bias": True}, "attention_bias true"),
        ({"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping 50\.0"),
        ({"final_logit_softcapping": -1}, "final_logit_softcapping is -1"),
        ({"sliding_window": None}, "sliding_window is null"),
        ({"layer_types": ["full_attention"] + ["sliding_attention"] * 25}, "full_attention in layers 0,"),
        ({"layer_types": ["chunked_attention"] * 26}, "chunked_attention"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        (
            {"rope_parameters": {
                "full_attention": {}, "sliding_attention": {"rope_type": "linear", "factor": 2.0},
            }},
            "sliding_attention: rope_type 'linear' is not supported",
        ),
    ],
)  # fmt: skip
def test_what_gemma_cannot_be_is_refused_with_its_value(change: dict[str, Any], said: str):
    with pytest.raises(SourceError, match=said):
        read_shape(GEMMA_3 | change)


def test_phi_reads_its_factors_per_channel():
    shape = read_shape(PHI)
    assert shape.fused_source
    assert shape.rope_scaling == {
        "rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    assert read_shape(PHI | {"rope_scaling": None}).rope_scaling is None


def test_phi_of_transformers_5_gives_the_same_shape():
    given = {key: copy.deepcopy(value) for key, value in PHI.items() if key != "torch_dtype"}
    config = transformers.Phi3Config(**given, dtype="bfloat16")
    assert read_shape(config.to_dict()) == read_shape(PHI)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"partial_rotary_factor": 0.75}, r"partial_rotary_factor 0\.75"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_scaling": PHI["rope_scaling"] | {"short_factor": [1.0]}}, "short_factor is 1 factors.*of 48"),
        ({"rope_scaling": PHI["rope_scaling"] | {"factor": 2.0}}, r"factor 2\.0"),
        ({"rope_scaling": PHI["rope_scaling"] | {"attention_factor": 2.0}}, r"attention_factor 2\.0"),
        ({"original_max_position_embeddings": None}, "original_max_position_embeddings is null"),
    ],
)
def test_what_phi_cannot_be_is_refused_with_its_value(change: dict[str, Any], said: str):
    with pytest.raises(SourceError, match=said):
        read_shape(PHI | change)
