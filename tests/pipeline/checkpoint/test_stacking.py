"""Experts in a layout, materialised on integers: source tensor = its element numbers."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint import conversion_audit
from pipeline.checkpoint.layout_checks import reasons
from pipeline.checkpoint.slicing import plan as plan_of
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.checkpoint.tensor_parts import LocalTensor, Slice
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from recipes.formats import FORMATS
from recipes.precision import Precision

TOY = {
    "dtype": "bfloat16", "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 2, "vocab_size": 5, "max_position_embeddings": 16,
    "num_experts_per_tok": 2,
}  # fmt: skip
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "intermediate_size": 4,
    "num_local_experts": 4,
}
QWEN = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "intermediate_size": 99, "moe_intermediate_size": 4,
    "shared_expert_intermediate_size": 8, "num_experts": 4,
}  # fmt: skip
BUILT = ("none", "fp8", "int8_wo", "int4_wo")


def toy(family=None, **change) -> ModelShape:
    return read_shape({**TOY, **(family or MIXTRAL), **change})


def plan(shape, fmt="none", tp=1, pp=1, ep=1) -> list[list[LocalTensor]]:
    return plan_of(shape, Precision.parse(fmt), tp, pp, "auto", ep)


def materialise(tensor):
    """A local tensor whose elements are the numbers of the source elements."""
    parts = []
    for part in tensor.parts:
        numbers = np.arange(math.prod(part.shape)).reshape(part.shape)
        parts.append(numbers[tuple(slice(*each) for each in part.ranges)].reshape(-1))
    return np.concatenate(parts).reshape(tensor.shape)


def named(rank):
    return {tensor.name: tensor for tensor in rank}


def sources(tensor):
    return [part.source.removeprefix("model.layers.0.") for part in tensor.parts]


def test_up_stands_before_gate_in_every_expert():
    tensors = named(plan(toy())[0])
    fc = tensors["transformer.layers.0.mlp.fc.weight"]
    assert fc.shape == (4, 8, 6)
    assert sources(fc)[:4] == [
        f"block_sparse_moe.experts.{expert}.{name}.weight" for expert in (0, 1) for name in ("w3", "w1")
    ]
    proj = tensors["transformer.layers.0.mlp.proj.weight"]
    assert proj.shape == (4, 6, 4)
    assert sources(proj)[1] == "block_sparse_moe.experts.1.w2.weight"


def test_ranks_that_split_experts_cut_up_and_gate_separately():
    second = named(plan(toy(), tp=2)[1])
    whole = np.arange(4 * 6).reshape(4, 6)
    fc = materialise(second["transformer.layers.0.mlp.fc.weight"])
    np.testing.assert_array_equal(fc, [[*whole[2:], *whole[2:]]] * 4)
    proj = materialise(second["transformer.layers.1.mlp.proj.weight"])
    np.testing.assert_array_equal(proj, [np.arange(6 * 4).reshape(6, 4)[:, 2:]] * 4)


def test_expert_ranks_run_fastest_and_hold_runs_of_whole_experts():
    ranks = plan(toy(), tp=4, ep=2)
    held = [sources(named(rank)["transformer.layers.0.mlp.proj.weight"]) for rank in ranks]
    experts = [sorted({int(source.split(".")[2]) for source in each}) for each in held]
    assert experts == [[0, 1], [2, 3], [0, 1], [2, 3]]
    columns = [named(rank)["transformer.layers.0.mlp.proj.weight"].parts[0].ranges[1] for rank in ranks]
    assert columns == [(0, 2), (0, 2), (2, 4), (2, 4)]


def test_the_router_is_whole_and_float32_everywhere():
    for rank in plan(toy(), "fp8", tp=2, ep=2):
        router = named(rank)["transformer.layers.0.mlp.router.weight"]
        assert (router.dtype, router.shape, router.parts[0].dtype) == ("F32", (4, 6), "BF16")


def test_fp8_experts_have_a_weight_scale_each_and_one_input_scale():
    tensors = named(plan(toy(), "fp8", tp=2, ep=2)[1])
    scale = tensors["transformer.layers.0.mlp.fc.weights_scaling_factor"]
    assert (scale.shape, scale.dtype) == ((2, 1), "F32")
    assert sources(scale) == [f"block_sparse_moe.experts.{expert}.w3.weight_scale" for expert in (2, 3)]
    equal = [part.source.removeprefix("model.layers.0.") for part in scale.equal]
    assert equal == [f"block_sparse_moe.experts.{expert}.w1.weight_scale" for expert in (2, 3)]
    inputs = tensors["transformer.layers.0.mlp.fc.activation_scaling_factor"]
    assert (inputs.shape, len(inputs.equal)) == ((1,), 3)
    assert tensors["transformer.layers.0.mlp.proj.activation_scaling_factor"].shape == (1,)


def test_equal_scales_are_reported_beside_those_that_stand_for_them():
    found = conversion_audit.uses(plan(toy(), "fp8"))
    use = next(iter(found["model.layers.1.block_sparse_moe.experts.3.w1.weight_scale"]))
    assert use.equal_to == "model.layers.1.block_sparse_moe.experts.3.w3.weight_scale"
    qkv = found["model.layers.0.self_attn.v_proj.weight_scale"][0]
    assert qkv.equal_to == "model.layers.0.self_attn.q_proj.weight_scale"


@pytest.mark.parametrize(
    ("fmt", "weight", "scale"),
    [("int8_wo", ("I8", (4, 512, 128)), (4, 512)), ("int4_wo", ("I8", (4, 256, 128)), (4, 512, 1))],
)
def test_weight_only_scales_are_stacked_with_their_weights(
    fmt: str, weight: tuple[str, tuple[int, int, int]], scale: tuple[int, ...]
):
    shape = toy(hidden_size=128, intermediate_size=256)
    tensors = named(plan(shape, fmt)[0])
    fc = tensors["transformer.layers.0.mlp.fc.weight"]
    assert (fc.dtype, fc.shape) == weight
    assert tensors["transformer.layers.0.mlp.fc.weights_scaling_factor"].shape == scale


def test_the_shared_expert_is_divided_by_all_ranks_whatever_ep_is():
    tensors = named(plan(toy(QWEN), tp=2, ep=2)[1])
    fc = tensors["transformer.layers.0.mlp.shared_expert.fc.weight"]
    assert sources(fc) == ["mlp.shared_expert.up_proj.weight", "mlp.shared_expert.gate_proj.weight"]
    assert [part.ranges[0] for part in fc.parts] == [(4, 8), (4, 8)]
    assert tensors["transformer.layers.0.mlp.shared_expert_gate.weight"].shape == (1, 6)
    assert tensors["transformer.layers.0.attention.qkv.bias"].shape == (12,)


def said(family=None, fmt="none", tp=1, ep=1, **change) -> list[str]:
    return reasons(toy(family, **change), Precision.parse(fmt), tp, 1, ep)


def test_expert_ranks_must_divide_ranks_and_experts():
    assert said(tp=4, ep=2) == []
    assert said(tp=2, ep=4) == ["engine.ep: 4 does not divide engine.tp 2; choose one of 1, 2"]
    assert said(tp=4, ep=4, num_local_experts=6) == [
        "engine.ep: 4 does not divide 6 experts; choose one of 1, 2"
    ]
    dense = read_shape(
        {
            **TOY,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 8,
            "intermediate_size": 8,
        }
    )
    assert reasons(dense, Precision.parse("none"), 2, 1, 2) == [
        "engine.ep: 2 needs a model with experts, LlamaForCausalLM has none; leave it out"
    ]


def test_channels_are_those_of_an_expert_and_of_the_shared_one():
    assert said(tp=4, intermediate_size=6) == [
        "engine.tp: 4 ranks (tp 4 / ep 1) cannot share the 6 channels of an expert equally; "
        "choose another tp, or raise engine.ep"
    ]
    assert said(tp=4, ep=2, intermediate_size=6) == []
    assert said(QWEN, tp=4, ep=4, shared_expert_intermediate_size=6) == [
        "engine.tp: 4 does not divide the 6 channels of the shared expert; choose one of 1, 2"
    ]


@pytest.mark.parametrize("fmt", sorted(set(FORMATS) - set(BUILT)))
@pytest.mark.parametrize("family", [MIXTRAL, QWEN], ids=["mixtral", "qwen"])
def test_formats_that_no_expert_can_have_name_the_way_out(family: dict[str, Any], fmt: str):
    sizes = {"hidden_size": 512, "head_dim": 128, "intermediate_size": 256, "moe_intermediate_size": 256}
    sizes["shared_expert_intermediate_size"] = 256
    (told,) = said(family, fmt, **sizes)
    assert told.startswith(f"format: '{fmt}' is not built for experts (model.layers.0.")
    assert told.endswith("give '*expert*' a format of none, fp8, int8_wo or int4_wo in format.except")
    assert said(family, {"default": fmt, "except": {"*expert*": "int8_wo"}}, **sizes) == []


def test_experts_of_one_stack_have_one_format():
    (told,) = said(fmt={"default": "fp8", "except": {"model.layers.1.*.experts.2.w1": "none"}})
    assert told == (
        "format.except: model.layers.1.block_sparse_moe.experts.0.w3 is fp8 by default, "
        "model.layers.1.block_sparse_moe.experts.2.w1 is none by 'model.layers.1.*.experts.2.w1'; "
        "runtimes fuse them, so give them one format"
    )


def test_int4_blocks_are_those_of_the_ranks_that_split_an_expert():
    sizes = {"hidden_size": 128, "head_dim": 128, "intermediate_size": 256}
    assert said(fmt="int4_wo", tp=4, ep=2, **sizes) == []
    assert "engine.tp: 4 splits w2" in said(fmt="int4_wo", tp=4, **sizes)[0]


@st.composite
def cases(draw):
    """A shape with experts, a format, tp, pp and ep that `reasons` allows."""
    ep, moe_tp, pp = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2])), draw(st.integers(1, 2))
    fmt, block = draw(st.sampled_from(BUILT)), 1
    if fmt == "int4_wo":
        block = 128
    tp = ep * moe_tp
    heads = tp * draw(st.integers(1, 2))
    family = draw(st.sampled_from([MIXTRAL, QWEN]))
    inner = moe_tp * block * draw(st.integers(1, 2))
    count = ep * draw(st.integers(1, 2))
    sizes = {
        "hidden_size": 2 * block, "num_hidden_layers": pp, "num_attention_heads": heads,
        "num_key_value_heads": heads, "head_dim": max(2, block), "intermediate_size": inner,
        "moe_intermediate_size": inner, "shared_expert_intermediate_size": tp * block,
        "num_local_experts": count, "num_experts": count, "num_experts_per_tok": 1,
    }  # fmt: skip
    return toy(family, **sizes), fmt, tp, pp, ep


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_element_of_an_expert_goes_to_one_rank_and_scales_to_those_that_split_it(case):
    shape, fmt, tp, pp, ep = case
    precision = Precision.parse(fmt)
    assert reasons(shape, precision, tp, pp, ep) == []
    ranks = plan(shape, fmt, tp, pp, ep)
    assert rank_bytes(shape, precision, tp, pp, "auto", ep) == [
        sum(tensor.nbytes for tensor in rank) for rank in ranks
    ]
    found = conversion_audit.uses(ranks)
    held = {name: (used[0].slice.dtype, used[0].slice.shape) for name, used in found.items()}
    conversion_audit.check(found, held, ())  # every element once, or more often with a reason
    for name, used in found.items():
        if "experts" not in name:
            continue
        counts: defaultdict[Any, int] = defaultdict(int)
        for use in used:
            counts[use.slice.ranges] += 1
        divided = name.endswith("weight") or (name.endswith("weight_scale") and used[0].slice.shape)
        if divided and not (name.endswith("weight_scale") and ("w2" in name or "down" in name)):
            assert set(counts.values()) == {1}, name
        else:
            assert set(counts.values()) in ({1}, {tp // ep}), name


@settings(max_examples=40, deadline=None)
@given(cases())
def test_ranks_put_side_by_side_restore_every_expert(case):
    shape, fmt, tp, pp, ep = case
    assert shape.experts is not None
    stage = [named(rank) for rank in plan(shape, fmt, tp, pp, ep)[:tp]]
    packed = 2 if fmt == "int4_wo" else 1
    whole = np.arange(shape.hidden_size // packed * shape.intermediate_size)
    whole = whole.reshape(shape.hidden_size // packed, -1)
    rows = [
        np.concatenate([materialise(r["transformer.layers.0.mlp.proj.weight"]) for r in stage[n::ep]], 2)
        for n in range(ep)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), [whole] * shape.experts.count)


def test_no_expert_tensor_is_left_out():
    names = {part.source for tensor in plan(toy(QWEN))[0] for part in tensor.parts if isinstance(part, Slice)}
    wanted = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight"
        for layer in range(2)
        for expert in range(4)
        for name in ("up", "gate", "down")
    }
    assert wanted <= names
    assert {f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)} <= names
