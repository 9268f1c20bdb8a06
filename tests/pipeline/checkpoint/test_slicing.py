"""The slicing plan, materialised on integers: source tensor = its element numbers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint.layout_checks import reasons
from pipeline.checkpoint.rank_place import share
from pipeline.checkpoint.slicing import plan as plan_of
from pipeline.checkpoint.slicing import rank_bytes, stage_layers
from pipeline.checkpoint.tensor_parts import Fill, Largest, Slice
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from recipes.formats import FORMATS
from recipes.precision import Precision

TOY: dict[str, Any] = {
    "dtype": "bfloat16",
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "intermediate_size": 8,
    "vocab_size": 5,
    "max_position_embeddings": 16,
    "tie_word_embeddings": False,
}
"""4 query heads, 2 key/value heads of 2 channels."""


def toy(architecture="LlamaForCausalLM", **change) -> ModelShape:
    """A shape of any hidden size; transformers asks Llama's to be a multiple of the heads."""
    sizes, model_type = TOY | change, architecture.removesuffix("ForCausalLM").lower()
    named = {"architectures": [architecture], "model_type": model_type}
    shape = read_shape(sizes | named | {"hidden_size": sizes["num_attention_heads"]})
    return replace(shape, hidden_size=sizes["hidden_size"])


def plan(shape, fmt, tp, pp, kv_cache="auto"):
    return plan_of(shape, Precision.parse(fmt), tp, pp, kv_cache)


def materialise(tensor):
    """A local tensor whose elements are the numbers of the source elements; -1 where nothing was copied."""
    parts = []
    for part in tensor.parts:
        if isinstance(part, Fill):
            parts.append(np.full(part.extent, -1))
        else:
            numbers = np.arange(math.prod(part.shape)).reshape(part.shape)
            parts.append(numbers[tuple(slice(*each) for each in part.ranges)].reshape(part.extent or (1,)))
    joined = np.concatenate(parts)
    assert joined.shape == tensor.shape
    return joined


def ranks(shape, fmt="none", tp=1, pp=1):
    """Per rank: local name -> its element numbers."""
    return [{tensor.name: materialise(tensor) for tensor in rank} for rank in plan(shape, fmt, tp, pp)]


def layer(rank, name: str, index=0):
    return rank[f"transformer.layers.{index}.{name}"]


def test_qkv_is_the_heads_of_the_rank_one_after_another():
    first, second = ranks(toy(), tp=2)
    q, kv = np.arange(8 * 6).reshape(8, 6), np.arange(4 * 6).reshape(4, 6)
    np.testing.assert_array_equal(layer(first, "attention.qkv.weight"), [*q[:4], *kv[:2], *kv[:2]])
    np.testing.assert_array_equal(layer(second, "attention.qkv.weight"), [*q[4:], *kv[2:], *kv[2:]])


def test_row_parallel_linears_are_cut_along_their_inputs():
    first, second = ranks(toy(), tp=2)
    whole = np.arange(6 * 8).reshape(6, 8)
    np.testing.assert_array_equal(layer(first, "attention.dense.weight"), whole[:, :4])
    np.testing.assert_array_equal(layer(second, "attention.dense.weight"), whole[:, 4:])
    np.testing.assert_array_equal(layer(second, "mlp.proj.weight"), whole[:, 4:])


def test_fc_is_gate_proj_and_gate_is_up_proj():
    sources = {tensor.name: tensor.parts[0].source for tensor in plan(toy(), "none", 1, 1)[0]}
    assert sources["transformer.layers.0.mlp.fc.weight"] == "model.layers.0.mlp.gate_proj.weight"
    assert sources["transformer.layers.0.mlp.gate.weight"] == "model.layers.0.mlp.up_proj.weight"
    assert (
        sources["transformer.layers.1.post_layernorm.weight"]
        == "model.layers.1.post_attention_layernorm.weight"
    )


def test_few_key_heads_are_repeated_on_neighbouring_ranks():
    four = ranks(toy(), tp=4)
    kv = np.arange(4 * 6).reshape(4, 6)
    held = [layer(rank, "attention.qkv.weight")[2:4] for rank in four]
    for rank, expected in zip(held, (kv[:2], kv[:2], kv[2:], kv[2:]), strict=True):
        np.testing.assert_array_equal(rank, expected)


def test_scales_of_repeated_key_heads_are_repeated_with_them():
    four = ranks(toy(), "int8_sq", tp=4)
    assert [layer(rank, "attention.qkv.weights_scaling_factor").tolist() for rank in four] == [
        [0, 1, 0, 1, 0, 1], [2, 3, 0, 1, 0, 1], [4, 5, 2, 3, 2, 3], [6, 7, 2, 3, 2, 3],
    ]  # fmt: skip


def test_vocabulary_is_padded_with_zero_rows():
    tables = [rank["transformer.vocab_embedding.weight"][:, 0] for rank in ranks(toy(), tp=4)]
    assert [table.tolist() for table in tables] == [[0, 6], [12, 18], [24, -1], [-1, -1]]


def test_stages_have_local_layer_numbers_and_their_own_ends():
    shape = toy(num_hidden_layers=4)
    first, last = plan(shape, "none", 1, 2)
    assert first[0].name == "transformer.vocab_embedding.weight"
    assert [tensor.name for tensor in last[-2:]] == ["transformer.ln_f.weight", "lm_head.weight"]
    norm = next(tensor for tensor in last if tensor.name == "transformer.layers.1.input_layernorm.weight")
    assert norm.parts[0].source == "model.layers.3.input_layernorm.weight"
    assert not {tensor.name for tensor in first} & {"transformer.ln_f.weight", "lm_head.weight"}


def test_ranks_count_tensor_parallel_fastest():
    shape = toy(num_hidden_layers=2)
    sources = [tensors[-1].parts[0] for tensors in plan(shape, "none", 2, 2)]
    assert [part.source for part in sources] == ["model.layers.0.mlp.down_proj.weight"] * 2 + [
        "lm_head.weight"
    ] * 2
    assert [part.ranges[1] for part in sources[:2]] == [(0, 4), (4, 8)]


def test_tied_head_is_written_from_the_embedding():
    tensors = plan(toy(tie_word_embeddings=True), "none", 1, 2)[1]
    assert tensors[-1].name == "lm_head.weight"
    assert tensors[-1].parts[0].source == "model.embed_tokens.weight"


def test_qwen2_biases_and_qwen3_norms_go_with_their_heads():
    bias = layer(ranks(toy("Qwen2ForCausalLM"), tp=2)[1], "attention.qkv.bias")
    assert bias.tolist() == [4, 5, 6, 7, 2, 3, 2, 3]
    norms = ranks(toy("Qwen3ForCausalLM"), tp=2)[1]
    assert layer(norms, "attention.q_layernorm.weight").tolist() == [0, 1]
    assert layer(norms, "attention.k_layernorm.weight").tolist() == [0, 1]


def test_int4_rows_are_pairs_and_blocks_follow_the_inputs():
    shape = toy(hidden_size=128, intermediate_size=512)
    second = {tensor.name: tensor for tensor in plan(shape, "int4_awq", 2, 1)[1]}
    packed = second["transformer.layers.0.mlp.proj.weight"]
    assert (packed.dtype, packed.shape) == ("I8", (64, 256))
    scales = second["transformer.layers.0.mlp.proj.weights_scaling_factor"]
    assert scales.parts[0].ranges == ((0, 128), (2, 4))
    assert second["transformer.layers.0.mlp.proj.prequant_scaling_factor"].parts[0].ranges == ((256, 512),)
    fc = second["transformer.layers.0.mlp.fc.weight"].parts[0]
    assert (fc.shape, fc.ranges) == ((256, 128), ((128, 256), (0, 128)))
    assert second["transformer.layers.0.mlp.fc.prequant_scaling_factor"].parts[0].value == 1


@pytest.mark.parametrize(
    ("fmt", "scales"),
    [
        ("none", 0),
        ("fp8", 2),
        ("fp8_rowwise", 1),
        ("int8_sq", 3),
        ("int4_awq", 2),
        ("w4a8_awq", 4),
        ("int8_wo", 1),
        ("int4_wo", 1),
    ],
)
def test_each_format_has_its_scales_in_float32(fmt: str, scales: int):
    shape = toy(hidden_size=128, head_dim=128, intermediate_size=256)
    tensors = plan(shape, fmt, 1, 1)[0]
    qkv = [tensor for tensor in tensors if tensor.name.startswith("transformer.layers.0.attention.qkv.")]
    assert len(qkv) == 1 + scales
    for tensor in qkv[1:]:
        assert tensor.dtype == ("BF16" if "prequant" in tensor.name else "F32")


def test_per_tensor_scales_are_taken_once_from_their_group():
    tensors = {tensor.name: tensor for tensor in plan(toy(), "fp8", 2, 1)[0]}
    scale = tensors["transformer.layers.0.attention.qkv.weights_scaling_factor"]
    assert scale.shape == (1,)
    assert [part.source for part in (*scale.parts, *scale.equal)] == [
        f"model.layers.0.self_attn.{name}_proj.weight_scale" for name in "qkv"
    ]


def test_size_estimate_is_exact_on_a_published_model():
    llama = read_shape(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "bfloat16",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
        }
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
        | {"vocab_size": 128256, "max_position_embeddings": 131072}
    )
    assert rank_bytes(llama, Precision.parse("none"), 1, 1) == [
        8_030_261_248 * 2
    ]  # parameters of Llama-3.1-8B on its model card
    norms = 65 * 4096 * 2
    assert rank_bytes(llama, Precision.parse("none"), 2, 1) == [(8_030_261_248 * 2 + norms) // 2] * 2


@pytest.mark.parametrize(("tp", "units"), [(3, 4), (3, 2)])
def test_what_does_not_divide_cannot_be_shared(tp: int, units: int):
    with pytest.raises(ValueError, match=f"tp {tp} and {units} units"):
        share(8, units, tp, 0)


def test_layers_that_would_be_lost_are_an_error():
    with pytest.raises(ValueError, match="pp 2 does not divide 3 layers"):
        stage_layers(3, 2, 0)


@st.composite
def precisions(draw, num_layers):
    """A format, or one for every fused group, by patterns."""
    formats = st.sampled_from(sorted(FORMATS))
    if draw(st.booleans()):
        return draw(formats)
    groups = ("self_attn.[qkv]_proj", "self_attn.o_proj", "mlp.[gu]*_proj", "mlp.down_proj")
    names = [f"model.layers.{layer}.{group}" for layer in range(num_layers) for group in groups]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return {"default": draw(formats), "except": {name: draw(formats) for name in chosen}}


@st.composite
def cases(draw):
    """A shape, precision, layout and KV cache that `reasons` allows."""
    pp, per_stage = draw(st.sampled_from([1, 2])), draw(st.integers(1, 2))
    fmt = draw(precisions(pp * per_stage))
    int4 = any(each.weight == "int4" for each in Precision.parse(fmt).formats)
    block = 128 if int4 else 1
    tp = draw(st.sampled_from([1, 2, 4] if block > 1 else [1, 2, 3, 4, 6]))
    kv_heads = draw(st.sampled_from([kv for kv in (1, 2, 3, 4, 8) if kv % tp == 0 or tp % kv == 0]))
    heads = math.lcm(tp, kv_heads) * draw(st.integers(1, 2))
    architecture = draw(
        st.sampled_from(["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
    )
    shape = toy(
        architecture,
        hidden_size=draw(st.sampled_from([1, 2])) * (block if block > 1 else 4),
        num_hidden_layers=pp * per_stage,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=block if block > 1 else draw(st.sampled_from([2, 4])),
        intermediate_size=tp * block * draw(st.integers(1, 2)),
        vocab_size=draw(st.integers(1, 9)),
        tie_word_embeddings=draw(st.booleans()),
    )
    return shape, fmt, tp, pp, draw(st.sampled_from(["auto", "fp8", "int8"]))


def counts(all_ranks):
    """How often each element of each source tensor is used, and the tensors' shapes."""
    used: dict[Any, Any] = {}
    for tensor in (tensor for rank in all_ranks for tensor in rank):
        computed = [each for part in tensor.parts if isinstance(part, Largest) for each in part.sources]
        for part in (*tensor.parts, *tensor.equal, *computed):
            if isinstance(part, Slice):
                count = used.setdefault(part.source, np.zeros(part.shape, int))
                assert count.shape == part.shape
                count[tuple(slice(*each) for each in part.ranges)] += 1
    return used


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_element_is_used_equally_often_and_divided_tensors_once(case):
    shape, fmt, tp, pp, kv_cache = case
    planned, precision = plan(shape, fmt, tp, pp, kv_cache), Precision.parse(fmt)
    assert reasons(shape, precision, tp, pp) == []
    assert rank_bytes(shape, precision, tp, pp, kv_cache) == [
        sum(tensor.nbytes for tensor in rank) for rank in planned
    ]
    for source, count in counts(planned).items():
        assert count.min() == count.max() >= 1, source
        times = int(count.max())
        if source.endswith(("k_scale", "v_scale")):
            assert times == tp, source
        elif ".k_proj." in source or ".v_proj." in source:
            assert times in (max(1, tp // shape.num_kv_heads), tp), source
        elif source == "model.embed_tokens.weight":
            assert times == (2 if shape.tie_word_embeddings else 1)
        elif source.endswith("proj.weight") or source == "lm_head.weight":
            assert times == 1, source
        else:
            assert times in (1, tp), source


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ranks_put_side_by_side_restore_the_source(case):
    shape, fmt, tp, pp, _ = case
    everything = ranks(shape, fmt, tp, pp)
    for local, name, axis in (("mlp.fc", "mlp.gate_proj", 0), ("mlp.proj", "mlp.down_proj", 1)):
        for index in range(shape.num_layers):
            stage, number = divmod(index, shape.num_layers // pp)
            mine = everything[stage * tp : (stage + 1) * tp]
            restored = np.concatenate([layer(rank, f"{local}.weight", number) for rank in mine], axis)
            np.testing.assert_array_equal(restored, np.arange(restored.size).reshape(restored.shape), name)
    rows = np.concatenate([rank["transformer.vocab_embedding.weight"] for rank in everything[:tp]])
    whole = np.arange(shape.vocab_size * shape.hidden_size).reshape(shape.vocab_size, -1)
    np.testing.assert_array_equal(rows[: shape.vocab_size], whole)
    assert (rows[shape.vocab_size :] == -1).all()
    assert rows.shape[0] % tp == 0


@settings(max_examples=60, deadline=None)
@given(cases())
def test_query_heads_stay_with_their_key_head(case):
    shape, fmt, tp, _, _ = case
    kind = Precision.parse(fmt).of("model.layers.0.self_attn.q_proj").weight
    group, pack = shape.num_heads // shape.num_kv_heads, 2 if kind == "int4" else 1
    for rank in plan(shape, fmt, tp, 1):
        qkv = next(tensor for tensor in rank if tensor.name == "transformer.layers.0.attention.qkv.weight")
        q, k, _ = ([each * pack // shape.head_dim for each in part.ranges[0]] for part in qkv.parts)
        assert {head // group for head in range(*q)} == set(range(*k))
