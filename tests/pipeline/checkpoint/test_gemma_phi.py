"""Rank files and config.json of Gemma 2, Gemma 3 and Phi-3, from config.json alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.checkpoint.conversion_audit import report, uses
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION, engine_config
from pipeline.checkpoint.slicing import plan
from pipeline.checkpoint.tensor_parts import LocalTensor, PlusOne, Slice
from pipeline.models.config_json import read_shape
from recipes.precision import Precision
from tests.jobs import build_sharded as build

SIZES = {
    "dtype": "bfloat16", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "intermediate_size": 512, "vocab_size": 100, "max_position_embeddings": 512,
}  # fmt: skip
GEMMA_2 = {
    **SIZES,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "sliding_window": 16,
    "query_pre_attn_scalar": 144,
}
GEMMA_3 = {
    **SIZES,
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "sliding_window": 16,
    "sliding_window_pattern": 3,
}
PHI = {**SIZES, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": None}
NONE = Precision.parse("none")


def tensors_of(config: dict[str, Any], fmt: str = "none", tp: int = 1, pp: int = 1):
    ranks = plan(read_shape(config), Precision.parse(fmt), tp, pp)
    return [{tensor.name: tensor for tensor in tensors} for tensors in ranks]


def test_gemmas_norms_are_one_plus_the_sources_and_each_is_named_as_tensorrt_llm_does():
    [tensors] = tensors_of(GEMMA_3)
    layer = "transformer.layers.0"
    expected = {
        f"{layer}.input_layernorm": "input_layernorm", f"{layer}.post_layernorm": "post_attention_layernorm",
        f"{layer}.pre_feedforward_layernorm": "pre_feedforward_layernorm",
        f"{layer}.post_feedforward_layernorm": "post_feedforward_layernorm",
        f"{layer}.attention.q_layernorm": "self_attn.q_norm", f"{layer}.attention.k_layernorm": "self_attn.k_norm",
    }  # fmt: skip
    for local, source in expected.items():
        [part] = tensors[f"{local}.weight"].parts
        assert isinstance(part, PlusOne)
        assert part.source.source == f"model.layers.0.{source}.weight"
    assert isinstance(tensors["transformer.ln_f.weight"].parts[0], PlusOne)
    assert f"{layer}.attention.q_layernorm.weight" not in tensors_of(GEMMA_2)[0]


def test_the_sum_is_rounded_once_to_the_nearest_even_value(tmp_path: Path):
    """Above one, float16 has steps of 2**-10: sums that end in half a step go to the even neighbour."""
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    checkpoint.mkdir()
    out.mkdir()
    shape = read_shape({**GEMMA_2, "dtype": "float16"})
    slices = {s.source: s for t in plan(shape, NONE, 1, 1)[0] for s in sources(t)}
    weights = {name: np.full(each.shape, 2.0**-11, np.float16) for name, each in slices.items()}
    weights["model.norm.weight"][1:3] = 3 * 2.0**-11, 0.5
    save_file(weights, checkpoint / "model.safetensors")
    (checkpoint / "config.json").write_text(json.dumps({**GEMMA_2, "dtype": "float16"}))
    (checkpoint / "tokenizer.json").write_text("{}")
    params = {"format": "none", "tp": 1, "pp": 1, "layout_version": LAYOUT_VERSION}
    build({"params": params, "inputs": {"checkpoint": str(checkpoint)}}, out, lambda *_: None)
    found = load_file(out / "rank0.safetensors")["transformer.ln_f.weight"]
    assert found[:4].tolist() == [1.0, 1 + 2**-9, 1.5, 1.0]
    audit = json.loads((out / "audit.json").read_text())
    told = {"rank": 0, "tensor": "transformer.ln_f.weight", "one_plus": "model.norm.weight"}
    assert told in audit["computed"]


def sources(tensor: LocalTensor) -> list[Slice | Any]:
    return [part.source if isinstance(part, PlusOne) else part for part in tensor.parts] + list(tensor.equal)


def test_a_sum_counts_as_a_use_of_its_source():
    part = Slice("norm.weight", "BF16", (4,), ((0, 4),))
    ranks = [[LocalTensor("ln_f.weight", "BF16", (4,), (PlusOne(part),))]]
    assert [use.tensor for use in uses(ranks)["norm.weight"]] == ["ln_f.weight"]
    told = report(ranks, uses(ranks), {})
    assert told["elements"] == {"source": 4, "written_again": 0}


def test_phis_projections_are_cut_out_of_the_fused_ones():
    ranks = tensors_of(PHI, "int4_wo", tp=2)
    for rank, tensors in enumerate(ranks):
        qkv = tensors["transformer.layers.0.attention.qkv.weight"].parts
        assert {part.source for part in qkv} == {"model.layers.0.self_attn.qkv_proj.weight"}
        # packed in pairs: 256 query, 128 key and 128 value channels are 128, 64 and 64 rows
        assert [part.ranges[0] for part in qkv] == [
            (rank * 64, rank * 64 + 64), (128 + rank * 32, 160 + rank * 32), (192 + rank * 32, 224 + rank * 32),
        ]  # fmt: skip
        scales = tensors["transformer.layers.0.mlp.fc.weights_scaling_factor"].parts
        assert [part.ranges[0] for part in scales] == [
            (512 + rank * 256, 768 + rank * 256), (rank * 256, rank * 256 + 256),
        ]  # fmt: skip
    assert "transformer.layers.0.mlp.gate.weight" not in ranks[0]


def test_phis_halves_share_one_scale_and_name_its_source_once():
    tensor = tensors_of(PHI, "fp8")[0]["transformer.layers.0.attention.qkv.weights_scaling_factor"]
    assert (len(tensor.parts), tensor.equal) == (1, ())


@pytest.mark.parametrize("config", [GEMMA_2, GEMMA_3, PHI])
def test_smoothing_that_no_norm_carries_stands_in_the_rank_file(config: dict[str, Any]):
    [tensors] = tensors_of(config, "int4_awq")
    for linear in ("attention.qkv", "mlp.fc"):
        [part] = tensors[f"transformer.layers.0.{linear}.prequant_scaling_factor"].parts
        assert isinstance(part, Slice)


def test_gemma_2_says_what_its_config_class_asks_for():
    found = engine_config(read_shape(GEMMA_2), NONE, 2, 1)
    expected = {
        "architecture": "Gemma2ForCausalLM", "hidden_act": "gelu", "inter_layernorms": True, "query_pre_attn_scalar": 144,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attn_bias": False, "mlp_bias": False,
        "layer_windows": [16, None, 16, None], "embedding_scale": 16.0, "norms_round_last": True,
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert "_sliding_window_pattern" not in found


def test_gemma_3_says_its_pattern_and_its_local_base():
    found = engine_config(read_shape(GEMMA_3), NONE, 1, 1)
    assert found["_sliding_window_pattern"] == 3
    assert (found["rotary_base"], found["rope_local_base_freq"], found["sliding_window"]) == (1e6, 1e4, 16)
    whole = engine_config(read_shape({**GEMMA_3, "sliding_window_pattern": 1}), NONE, 1, 1)
    assert (whole["_sliding_window_pattern"], whole["layer_windows"]) == (1, [None] * 4)


def test_phi_says_its_factors_in_fields_of_their_own():
    assert engine_config(read_shape(PHI), NONE, 1, 1)["hidden_act"] == "swiglu"
    rope = {"type": "longrope", "short_factor": [1.0] * 32, "long_factor": [2.0] * 32}
    shape = read_shape({**PHI, "rope_scaling": rope, "original_max_position_embeddings": 128})
    found = engine_config(shape, NONE, 1, 1)
    assert found["position_embedding_type"] == "long_rope"
    assert found["longrope_scaling_long_factors"] == [2.0] * 32
    assert (found["original_max_position_embeddings"], found["rotary_scaling"]) == (128, None)
