"""Layouts that cannot be, and what the recipe is told."""

import pytest

from pipeline.checkpoint.layout_checks import reasons
from pipeline.models.config_json import read_shape
from recipes.formats import FORMATS
from recipes.precision import Precision

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 1001,
    "max_position_embeddings": 512,
}


DOWN = {"default": "fp8", "except": {"model.layers.[01].mlp.down_proj": "int4_awq"}}


def said(fmt="none", tp=1, pp=1, **change) -> list[str]:
    return reasons(read_shape(CONFIG | change), Precision.parse(fmt), tp, pp)


@pytest.mark.parametrize("fmt", [*FORMATS, DOWN])
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (4, 2), (8, 8)])
def test_legal_layouts_have_no_reason_against_them(fmt, tp: int, pp: int):
    assert said(fmt, tp, pp) == []


def test_heads_that_do_not_divide():
    assert said(tp=3) == [
        "engine.tp: 3 does not divide 8 attention heads; choose one of 1, 2, 4, 8",
        "engine.tp: 3 neither divides 4 key/value heads nor is their multiple; choose one of 1, 2, 4",
    ]


def test_key_heads_that_divide_neither_way():
    assert said(tp=4, hidden_size=1536, num_attention_heads=12, num_key_value_heads=6) == [
        "engine.tp: 4 neither divides 6 key/value heads nor is their multiple; choose one of 1, 2, 3, 6"
    ]


def test_layers_and_channels_that_do_not_divide_are_listed_together():
    assert said(tp=8, pp=3, intermediate_size=3076) == [
        "engine.pp: 3 does not divide 8 layers; choose one of 1, 2, 4, 8",
        "engine.tp: 8 does not divide 3076 MLP channels; choose one of 1, 2, 4",
    ]


def test_shards_of_broken_blocks_name_the_linear():
    assert said("int4_awq", tp=2, intermediate_size=4864 - 128) == [
        "engine.tp: 2 splits down_proj (4736 input channels) into shards that are not whole 128-element "
        "blocks; choose tp so that 4736 % (tp * 128) == 0"
    ]
    assert said("fp8", tp=2, intermediate_size=4864 - 128) == []


def test_a_model_without_whole_blocks_cannot_have_the_format():
    told = said("int4_awq", intermediate_size=704)
    assert told == [
        "format: 'int4_awq' needs whole 128-element blocks, down_proj has 704 input channels; "
        "choose a format without blocks"
    ]
    assert "q_proj, k_proj, v_proj" in said("int4_awq", hidden_size=1000)[0]


def test_odd_numbers_of_int4_rows_are_refused():
    told = said("int4_awq", num_attention_heads=128, num_key_value_heads=4, head_dim=1, tp=1)
    assert told == []
    told = said("int4_awq", num_attention_heads=512, num_key_value_heads=4, head_dim=1, tp=4)
    assert [each.partition(";")[0] for each in told] == [
        f"engine.tp: 4 gives each rank 1 output channels of {name}" for name in ("k_proj", "v_proj")
    ]


def test_blocks_are_checked_where_the_precision_has_them():
    assert said(DOWN, tp=2, intermediate_size=4864 - 128) == [
        "format.except: 'model.layers.[01].mlp.down_proj': engine.tp: 2 splits down_proj (4736 input channels) "
        "into shards that are not whole 128-element blocks; choose tp so that 4736 % (tp * 128) == 0"
    ]
    spared = {"default": "int4_wo", "except": {"*.down_proj": "int8_wo"}}
    assert said(spared, tp=2, intermediate_size=4864 - 128) == []


def test_fused_linears_of_several_formats_are_named_with_what_decides_them():
    assert said({"default": "fp8", "except": {"model.layers.3.self_attn.k_proj": "int8_sq"}}) == [
        "format.except: model.layers.3.self_attn.q_proj is fp8 by default, "
        "model.layers.3.self_attn.k_proj is int8_sq by 'model.layers.3.self_attn.k_proj', "
        "model.layers.3.self_attn.v_proj is fp8 by default; runtimes fuse them, so give them one format"
    ]


def test_a_pattern_that_splits_groups_in_every_layer_is_told_once():
    (told,) = said({"default": "fp8", "except": {"*.gate_proj": "none"}})
    assert "model.layers.0.mlp.gate_proj is none by '*.gate_proj'" in told
    assert ", and so in 7 more layers; runtimes fuse them" in told
