"""Reading `config.json` of models with experts."""

from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import Experts

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
}  # fmt: skip
"""The published `config.json` of Mixtral-8x7B-v0.1, without the fields nobody reads."""

QWEN = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "torch_dtype": "bfloat16", "hidden_size": 2048,
    "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5632,
    "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts": 60,
    "num_experts_per_tok": 4, "norm_topk_prob": False, "decoder_sparse_step": 1, "vocab_size": 151936,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "use_sliding_window": False, "max_window_layers": 21,
}  # fmt: skip
"""The published `config.json` of Qwen1.5-MoE-A2.7B, without the fields nobody reads."""


def test_mixtral_is_mistral_with_experts():
    shape = read_shape(MIXTRAL)
    assert (shape.model_type, shape.qkv_bias, shape.rope_theta) == ("mixtral", False, 1e6)
    assert shape.intermediate_size == 14336
    assert shape.experts == Experts(
        count=8, per_token=2, intermediate_size=14336, shared_intermediate_size=0, normalized=True
    )


def test_qwen2_moe_has_biases_a_shared_expert_and_weights_as_they_come():
    shape = read_shape(QWEN)
    assert (shape.model_type, shape.qkv_bias, shape.sliding_window) == ("qwen2_moe", True, None)
    assert shape.intermediate_size == 1408
    assert shape.experts == Experts(
        count=60, per_token=4, intermediate_size=1408, shared_intermediate_size=5632, normalized=False
    )
    normalized = read_shape(QWEN | {"norm_topk_prob": True}).experts
    assert normalized is not None
    assert normalized.normalized


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        (QWEN, {"mlp_only_layers": [0]}, r"mlp_only_layers \[0\]"),
        (QWEN, {"decoder_sparse_step": 2}, "decoder_sparse_step 2"),
        (QWEN, {"use_sliding_window": True}, "use_sliding_window true"),
        (QWEN, {"qkv_bias": False}, "qkv_bias false"),
        (QWEN, {"num_experts": 0}, "num_experts is 0"),
        (QWEN, {"moe_intermediate_size": None}, "moe_intermediate_size is null"),
        (MIXTRAL, {"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than num_local_experts 8"),
        (MIXTRAL, {"hidden_act": "gelu"}, "'gelu' is not supported for MixtralForCausalLM"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_value(
    config: dict[str, Any], change: dict[str, Any], said: str
):
    with pytest.raises(SourceError, match=said):
        read_shape(config | change)
