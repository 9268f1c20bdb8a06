"""EAGLE's net in rank files: where every element goes, what the config.json says, and what is refused."""

from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint import conversion_audit, eagle_heads
from pipeline.checkpoint.eagle_heads import Eagle
from pipeline.checkpoint.rank_layout import engine_config
from pipeline.checkpoint.rank_place import Place
from pipeline.checkpoint.slicing import plan
from pipeline.drafting import eagle as trees
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from recipes.precision import Precision
from tests.pipeline.checkpoint import test_slicing
from tests.pipeline.checkpoint.test_slicing import materialise

PLAIN = Precision.parse("none")
NODES = 6
"""The first tree of three levels."""

TOY = test_slicing.TOY | {"hidden_size": 12}


def toy(**change) -> ModelShape:
    return test_slicing.toy(**(TOY | change))


def config_of(**change) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **TOY,
        "num_hidden_layers": 1,
        **change,
    }


def kinds(*without, bias=True, hidden=12, dtype="BF16", **more):
    """Type and shape of the tensors of a net for the toy."""
    sizes = {
        "embed_tokens": (5, hidden), "fc": (hidden, 2 * hidden), "layers.0.post_attention_layernorm": (hidden,),
        "layers.0.self_attn.q_proj": (8, hidden), "layers.0.self_attn.k_proj": (4, hidden),
        "layers.0.self_attn.v_proj": (4, hidden), "layers.0.self_attn.o_proj": (hidden, 8),
        "layers.0.mlp.gate_proj": (8, hidden), "layers.0.mlp.up_proj": (8, hidden),
        "layers.0.mlp.down_proj": (hidden, 8),
    }  # fmt: skip
    found = {f"{name}.weight": (dtype, size) for name, size in sizes.items() if name not in without}
    return found | ({"fc.bias": (dtype, (hidden,))} if bias else {}) | more


def net(**change) -> Eagle:
    return eagle_heads.read(config_of(), kinds(**change))


def on_ranks(found: Eagle, shape, tp: int):
    return [eagle_heads.tensors(found, shape, Place(tp, 1, rank), NODES) for rank in range(tp)]


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_every_element_is_used_once_or_again_for_a_reason(tp: int, bias: bool, tied: bool):
    shape, found = toy(tie_word_embeddings=tied), net(bias=bias)
    added = on_ranks(found, shape, tp)
    ranks = [[*base, *more] for base, more in zip(plan(shape, PLAIN, tp, 1), added, strict=True)]
    used = conversion_audit.uses(ranks)
    base = {
        name: (uses[0].slice.dtype, uses[0].slice.shape)
        for name, uses in used.items()
        if name[:6] != "heads."
    }
    conversion_audit.check(
        used, base | {f"heads.{name}": kind for name, kind in kinds(bias=bias).items()}, ()
    )


def test_the_net_is_cut_as_a_layer_of_the_model():
    first, second = (
        {tensor.name: materialise(tensor) for tensor in rank} for rank in on_ranks(net(), toy(), tp=2)
    )
    here = "eagle_nets.0.drafter"
    whole = np.arange(12 * 24).reshape(12, 24)
    assert np.array_equal(np.concatenate([first[f"{here}.fc.weight"], second[f"{here}.fc.weight"]]), whole)
    assert second[f"{here}.fc.bias"].tolist() == [6, 7, 8, 9, 10, 11]
    q, k = np.arange(8 * 12).reshape(8, 12), np.arange(4 * 12).reshape(4, 12)
    wanted = np.concatenate([q[4:], k[2:], k[2:]])
    assert np.array_equal(second[f"{here}.layers.0.attention.qkv.weight"], wanted)
    dense = np.arange(12 * 8).reshape(12, 8)
    assert np.array_equal(second[f"{here}.layers.0.attention.dense.weight"], dense[:, 4:])
    assert np.array_equal(second[f"{here}.vocab_embedding.weight"][-1], np.full(12, -1))


def test_each_level_of_the_tree_has_a_copy_with_the_models_head():
    (rank,) = on_ranks(net(), toy(), tp=1)
    names = [tensor.name for tensor in rank]
    assert len(names) == 3 * 10
    assert not [name for name in names if "input_layernorm" in name or "ln_f" in name]
    heads = [tensor.parts[0].source for tensor in rank if tensor.name.endswith("lm_head.weight")]
    assert heads == ["lm_head.weight"] * 3


def test_a_net_without_bias_gets_zeros():
    (rank,) = on_ranks(net(bias=False), toy(), tp=1)
    made = {tensor.name: tensor for tensor in rank}["eagle_nets.2.drafter.fc.bias"]
    assert (made.dtype, made.shape, made.parts[0].value) == ("BF16", (12,), 0)


@pytest.mark.parametrize("fmt", ["none", "fp8", "int8_wo"])
def test_the_config_describes_model_and_net_and_spares_the_net_from_quantization(fmt: str):
    shape = toy()
    base = engine_config(shape, Precision.parse(fmt), 2, 1)
    made = eagle_heads.config(base, net(), shape, NODES, 2)
    told = ("architecture", "num_eagle_layers", "max_draft_len", "max_non_leaves_per_layer")
    assert [made[name] for name in told] == ["EagleForCausalLM", 3, 6, 1]
    inner = made["eagle_net_config"]
    assert (inner["architecture"], inner["num_hidden_layers"]) == ("LlamaForCausalLM", 1)
    assert inner["mapping"] == made["mapping"]
    assert inner["quantization"] == {"quant_algo": None, "kv_cache_quant_algo": None}
    assert ("eagle_nets.*" in made["quantization"].get("exclude_modules", ())) == (fmt != "none")
    assert made["num_hidden_layers"] == 2


def test_the_tree_fits_what_the_config_says():
    made = eagle_heads.config(engine_config(toy(), PLAIN, 1, 1), net(), toy(), 63, 1)
    assert made["num_eagle_layers"] == trees.depth(trees.tree(63)) == 4


@pytest.mark.parametrize(
    ("config", "tensors", "told"),
    [
        ({}, kinds(**{"fc.weight": ("BF16", (12, 36))}), "the net is of EAGLE-3, which reads several layers"),
        ({"architectures": ["LlamaForCausalLMEagle3"]}, kinds(**{"midlayer.x": ("BF16", (6,))}), "the net is of EAGLE-3"),
        ({"architectures": ["Qwen2ForCausalLM"]}, kinds(), "architectures \\['Qwen2ForCausalLM'\\]; an EAGLE-1 net"),
        ({}, kinds("embed_tokens"), ": embed_tokens.weight is missing;"),
        ({}, kinds("fc"), "an EAGLE-1 net of one layer of 12 \\(no fc.weight\\)"),
        ({}, kinds(**{"layers.1.mlp.up_proj.weight": ("BF16", (8, 12))}), "layers.1.mlp.up_proj.weight is none of its"),
        ({}, kinds(**{"layers.0.mlp.up_proj.weight": ("F16", (8, 12))}), "up_proj.weight is F16 .8, 12., it must be BF16"),
        ({}, kinds("embed_tokens", "layers.0.mlp.up_proj"), "embed_tokens.weight is missing, layers.0.mlp.up_proj"),
    ],
)  # fmt: skip
def test_what_is_no_eagle_1_net_is_refused(config: dict[str, Any], tensors, told: str):
    with pytest.raises(SourceError, match=told):
        eagle_heads.read(config_of(**config), tensors)


@pytest.mark.parametrize(
    ("model", "layout", "told"),
    [
        ({"architecture": "MistralForCausalLM"}, {}, "speculative.mode: TensorRT-LLM adds EAGLE's net to no Mistral"),
        ({"hidden_size": 8}, {}, "speculative.draft: the net's hidden size is 12, the model's 8"),
        ({"vocab_size": 7}, {}, "speculative.draft: the net's vocabulary is 5, the model's 7"),
        ({"dtype": "float16"}, {}, "speculative.draft: the net's type is BF16, the model's F16"),
        ({"num_key_value_heads": 4}, {}, "speculative.draft: the net's number of key heads is 2, the model's 4"),
        ({"rope_theta": 5e5}, {}, "speculative.draft: the net's rotary base is 10000.0, the model's 500000.0"),
        ({}, {"kv_cache": "fp8"}, "kv_cache: fp8 needs scales of every layer"),
        ({}, {"pp": 2}, "engine.pp: TensorRT-LLM supports EAGLE with tensor parallelism only, found 2 stages"),
        ({}, {"tp": 8}, "engine.tp: 8 does not divide the 12 outputs of the net's fc"),
    ],
)  # fmt: skip
def test_a_net_that_does_not_go_with_the_model_is_refused(model, layout: dict[str, Any], told: str):
    given: dict[str, Any] = {"kv_cache": "auto", "tp": 1, "pp": 1} | layout
    found = list(eagle_heads.reasons(net(), toy(**model), **given))
    assert [one for one in found if one.startswith(told)], found


def test_a_net_that_goes_with_the_model_is_taken():
    assert list(eagle_heads.reasons(net(), toy(), "auto", 2, 1)) == []
    assert read_shape(config_of()).num_layers == 1
