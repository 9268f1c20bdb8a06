"""The planner with mixtures of experts, windows and large vocabularies: exact weights, and no surprises."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint.slicing import rank_bytes
from pipeline.fit import predict
from pipeline.fit.planner import Planner
from pipeline.fit.result import RankMemory
from pipeline.models.shape import ModelShape
from pipeline.process.gpus import TARGETS
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from tests.pipeline.fit.shapes import limits, model, wanted

MIXTRAL = model(
    4096, 32, (32, 8), 14336, 32000, architectures=["MixtralForCausalLM"], model_type="mixtral",
    num_local_experts=8, num_experts_per_tok=2,
)  # fmt: skip
QWEN_MOE = model(
    2048, 24, (16, 16), 5632, 151936, architectures=["Qwen2MoeForCausalLM"], model_type="qwen2_moe", num_experts=60,
    num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
)  # fmt: skip
GEMMA_2 = model(
    3584, 42, (16, 8), 14336, 256000, architectures=["Gemma2ForCausalLM"], model_type="gemma2", head_dim=256, sliding_window=4096,
)  # fmt: skip
GEMMA_3 = model(
    1152, 26, (4, 1), 6912, 262144, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", head_dim=256, sliding_window=512,
)  # fmt: skip
PHI_3 = model(
    3072, 32, (32, 32), 8192, 32064, architectures=["Phi3ForCausalLM"], model_type="phi3", sliding_window=2047,
)  # fmt: skip
MISTRAL = model(
    4096, 32, (32, 8), 14336, 32000, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4096
)  # fmt: skip
FAMILIES = {
    "Mixtral": MIXTRAL, "Qwen2-MoE": QWEN_MOE, "Gemma 2": GEMMA_2, "Gemma 3": GEMMA_3, "Phi-3": PHI_3,
}  # fmt: skip
PARAMETERS = {"Mixtral": 46.7e9, "Qwen2-MoE": 14.3e9, "Gemma 2": 9.24e9, "Gemma 3": 1.0e9, "Phi-3": 3.82e9}
"""As the model cards say them."""

SMALL: dict[str, Any] = {"max_batch_size": 4, "max_seq_len": 8192}


def first_rank(shape, fmt="none", **more) -> RankMemory:
    """The memory of rank 0 on a B200."""
    return Planner(wanted(shape, fmt, **more), TARGETS["b200"]).ranks(wanted(shape, fmt, **more).engine)[0]


def choice(version) -> Choice:
    return Choice(
        toolchain=Toolchain(name="x", kind="path", location="/x", versions={"tensorrt_llm": version})
    )


def told(shape, version, **more) -> RankMemory:
    """The memory of rank 0 with a toolchain of a version."""
    request = replace(wanted(shape, **more), choice=choice(version))
    return Planner(request, TARGETS["b200"]).ranks(request.engine)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_those_of_the_published_model(name: str):
    shape, weights = FAMILIES[name], first_rank(FAMILIES[name], **SMALL).weights
    head = shape.vocab_size * shape.hidden_size if shape.tie_word_embeddings else 0  # stored twice
    assert weights / 2 - head == pytest.approx(PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("ep", [1, 2, 4])
@pytest.mark.parametrize("fmt", ["none", "fp8"])
def test_weights_of_expert_ranks_are_exact(ep: int, fmt: str):
    for shape in (MIXTRAL, QWEN_MOE):
        found = predict(wanted(shape, fmt, tp=4, ep=ep, **SMALL), TARGETS["h100"])
        exact = rank_bytes(shape, Precision.parse(fmt), 4, 1, "auto", ep)
        assert [rank.weights for rank in found.ranks] == exact


def test_routed_experts_of_a_token_may_all_be_on_one_rank():
    whole, split = (first_rank(MIXTRAL, "fp8", tp=4, ep=ep, **SMALL).activations for ep in (4, 1))
    tokens = limits(wanted(MIXTRAL, "fp8", tp=4, **SMALL)).num_tokens
    assert whole - split == tokens * 2 * (2 * 14336) * 3 // 4 * 2
    plain = model(4096, 32, (32, 8), 14336, 32000)
    assert first_rank(MIXTRAL, "fp8", **SMALL).activations > first_rank(plain, "fp8", **SMALL).activations


def test_the_expert_for_every_token_counts_beside_the_chosen_ones():
    alone = model(
        2048, 24, (16, 16), 5632, 151936, architectures=["Qwen2MoeForCausalLM"], model_type="qwen2_moe", num_experts=60,
        num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=1,
    )  # fmt: skip
    more, less = (first_rank(shape, **SMALL).activations for shape in (QWEN_MOE, alone))
    assert more - less == limits(wanted(QWEN_MOE, **SMALL)).num_tokens * 5631 * 2


def test_layers_with_a_window_hold_it_and_the_others_all():
    layer = 2 * 8 * 256 * 2
    assert first_rank(GEMMA_2, **SMALL).kv_per_request == layer * (21 * 4096 + 21 * 8192)
    layer = 2 * 1 * 256 * 2
    assert first_rank(GEMMA_3, **SMALL).kv_per_request == layer * (22 * 512 + 4 * 8192)


@pytest.mark.parametrize(
    ("shape", "version", "held"),
    [(GEMMA_2, "0.16.0", 42 * 8192), (GEMMA_2, "1.2.0", 21 * (4096 + 8192)), (MISTRAL, "0.16.0", 32 * 4096),
     (MISTRAL, "1.2.0", 32 * 4096)],
)  # fmt: skip
def test_versions_with_one_pool_hold_the_widest_window_in_every_layer(
    shape: ModelShape, version: str, held: int
):
    layer = 2 * 8 * shape.head_dim * 2
    assert told(shape, version, **SMALL).kv_per_request == layer * held


@pytest.mark.parametrize("backend", ["trtllm_torch", "aoti"])
def test_backends_that_are_told_no_window_hold_everything(backend: str):
    target = {"target": "host"} if backend == "aoti" else {}
    tokens = limits(wanted(GEMMA_3, backend=backend, **target, **SMALL)).seq_len
    assert first_rank(GEMMA_3, backend=backend, **target, **SMALL).kv_per_request == 26 * 1024 * tokens


def test_a_large_vocabulary_shows_in_the_logits():
    small = model(
        1152, 26, (4, 1), 6912, 32768, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", head_dim=256, sliding_window=512,
    )  # fmt: skip
    much, little = (first_rank(shape, **SMALL) for shape in (GEMMA_3, small))
    rows = limits(wanted(GEMMA_3, **SMALL)).logit_rows
    assert much.buffers - little.buffers >= 4 * rows * (262144 - 32768)
    assert much.activations - little.activations == 2 * rows * (262144 - 32768)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(FAMILIES)),
    fmt=st.sampled_from(["none", "fp8"]),
    batch=st.integers(1, 64),
    length=st.integers(64, 16384),
    more=st.sampled_from(["max_batch_size", "max_seq_len"]),
)
def test_more_never_takes_less(name, fmt, batch, length, more):
    sizes = {"max_batch_size": batch, "max_seq_len": length}
    less = first_rank(FAMILIES[name], fmt, **sizes)
    much = first_rank(FAMILIES[name], fmt, **{**sizes, more: 2 * sizes[more]})
    assert much.used_bytes >= less.used_bytes
    assert much.kv_per_request >= less.kv_per_request
    assert much.requests <= less.requests
    split = first_rank(FAMILIES[name], fmt, tp=2, **sizes)
    assert split.weights < less.weights
    assert split.kv_per_request <= less.kv_per_request


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("gpu", ["l4", "h100", "h100-pcie"])
def test_every_family_gets_an_answer_and_no_fix_that_would_be_refused(name: str, gpu: str):
    found = predict(wanted(FAMILIES[name], max_batch_size=16, max_seq_len=8192), TARGETS[gpu])
    assert found.verdict in ("fits", "queues", "impossible")
    assert (found.fix is None) or found.verdict != "fits"
    if FAMILIES[name].experts is not None and found.fix is not None:
        assert found.fix.change.get("format") != "int4_awq"
