import pytest

from calibration.layout import config_block, excluded, groups, may_be_left_out, quantization_block
from recipes.formats import FORMATS

RULES = (
    {"quantizer_name": "*", "enable": False},
    {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8}},
    {"quantizer_name": "*lm_head*", "enable": False},
    {"quantizer_name": "*", "parent_class": "nn.Embedding", "enable": False},
)


def test_the_last_matching_rule_counts():
    assert excluded("lm_head", RULES)
    assert not excluded("model.layers.0.mlp.up_proj", RULES)
    assert excluded("model.layers.0.mlp.up_proj", RULES[:1])
    assert excluded("model.layers.0.mlp.up_proj", ())


def test_groups_name_the_norm_that_feeds_them():
    first, second, *rest = groups(3)
    assert first.linears == tuple(f"model.layers.0.self_attn.{x}_proj" for x in "qkv")
    assert (first.norm, second.norm) == (
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
    )
    assert len(rest) == 4


def test_only_known_tensors_may_be_left_out():
    assert may_be_left_out("model.layers.3.self_attn.rotary_emb.inv_freq", tied=False)
    assert may_be_left_out("lm_head.weight", tied=True) == "tied to the embedding, which is written"
    assert may_be_left_out("lm_head.weight", tied=False) == ""
    assert may_be_left_out("model.layers.0.mlp.experts.weight", tied=True) == ""


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if fmt.modelopt_cfg])
def test_blocks_carry_the_format_and_what_is_left_alone(name):
    block = quantization_block(FORMATS[name], "0.47.0", ["model.embed_tokens", "lm_head"])
    details = block["quantization"]
    assert details["quant_algo"] == FORMATS[name].quant_algo
    assert details.get("group_size", 0) == FORMATS[name].block_size
    assert config_block(block)["ignore"] == details["exclude_modules"] == ["lm_head", "model.embed_tokens"]
