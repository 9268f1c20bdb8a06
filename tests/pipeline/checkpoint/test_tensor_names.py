"""What the converter writes has the names that each TensorRT-LLM release wants, no more and no less.

What they are is data from the public sources (data/tensor_names), which nothing here writes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint import naming
from pipeline.checkpoint.loadable import stored, unloadable
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.engines.tensorrt.capabilities import releases
from pipeline.engines.tensorrt.support import ALGORITHMS, EXPERT_ALGORITHMS, FAMILIES
from pipeline.models.config_json import read_shape
from recipes.formats import EXPERT_REFUSALS, FORMATS
from recipes.precision import Precision
from tests.contract import checkpoint as contract
from tests.jobs import build_sharded as build
from tests.pipeline.checkpoint.conftest import CONFIG

SIZES: dict[str, Any] = {
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 48, "sliding_window": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 5000.0, "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 32, "long_factor": [9.0] * 32,
}  # fmt: skip
QWEN_MOE = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "norm_topk_prob": False,
    "shared_expert_intermediate_size": 256, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
MODELS: dict[str, Any] = {
    "llama": ("LlamaForCausalLM", "llama", {}),
    "mistral": ("MistralForCausalLM", "mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", "qwen2", {}),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", {}),
    "gemma2": ("Gemma2ForCausalLM", "gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text", {
        **GEMMA, "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE | {"rope_theta": 1e6}},
    }),
    "phi3": ("Phi3ForCausalLM", "phi3", {"pad_token_id": None, "num_key_value_heads": 4}),
    "phi3 longrope": ("Phi3ForCausalLM", "phi3", {"pad_token_id": None, "rope_parameters": LONGROPE, "original_max_position_embeddings": 32}),
    "mixtral": ("MixtralForCausalLM", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "qwen2_moe", QWEN_MOE),
}  # fmt: skip
MIXED = {"default": "fp8", "except": {"*.0.self_attn.*": "none"}}
RELEASES = contract.facts("releases")["releases"]


def config_of(model) -> dict[str, Any]:
    architecture, model_type, more = MODELS[model]
    return {**CONFIG, **SIZES, "architectures": [architecture], "model_type": model_type, **more}


def formats_of(model: str):
    moe = "num_experts_per_tok" in MODELS[model][2]
    return [name for name in FORMATS if not (moe and name in EXPERT_REFUSALS)]


def known(architecture):
    """The releases whose names are known of an architecture."""
    eras = contract.facts("networks")["families"][architecture]
    return [
        release
        for release in RELEASES
        for era in eras
        if contract.minor(era["first"]) <= contract.minor(release) <= contract.minor(era["last"])
    ]


@pytest.fixture
def convert(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Converts a model for a release; returns the directory and its config.json."""

    def make(model, fmt, layout, release, kv_cache="auto"):
        out = tmp_path / f"{release} {layout}"
        out.mkdir()
        precision, config = Precision.parse(fmt), config_of(model)
        held, (tp, pp, ep) = stored(precision), layout
        source = make_checkpoint(held.as_param(), config, kv_cache=kv_cache)
        params = {
            "format": fmt, "kv_cache": kv_cache, "tp": tp, "pp": pp, "ep": ep, "layout_version": LAYOUT_VERSION,
            "at_build": held != precision, "names": naming.param(MODELS[model][0], release),
        }  # fmt: skip
        build({"params": params, "places": {}, "inputs": {"checkpoint": str(source)}}, out, lambda *_: None)
        return out, json.loads((out / "config.json").read_text())

    return make


def by_names(architecture):
    """One release of each of an architecture's names -> the releases with them."""
    found: dict[Any, Any] = {}
    for release in known(architecture):
        found.setdefault(naming.names(architecture, release), []).append(release)
    return found.values()


def held(directory, config, release, ranks) -> bool:
    """Asserts that every rank file holds the tensors that the release wants, exactly; else False: it refuses."""
    for rank in range(ranks):
        try:
            wanted = contract.Rank(directory, config, rank, release).tensors()
        except (AssertionError, KeyError):
            return False
        found = contract.header(directory / f"rank{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for name, (types, shape) in wanted.items():
            assert found[name] in [(kind, shape) for kind in types], name
    return True


def refused(model: str, fmt, pp: int, release) -> bool:
    """Whether the plan refuses an engine of that release."""
    architecture, number = MODELS[model][0], contract.minor(release)
    shape, precision = read_shape(config_of(model)), Precision.parse(fmt)
    algorithm = "W4A16_AWQ" if fmt == "int4_wo" else FORMATS[fmt].quant_algo
    of_experts = EXPERT_ALGORITHMS.get(algorithm, (0, 0)) if shape.experts else (0, 0)
    since = max(FAMILIES[architecture], ALGORITHMS.get(algorithm, (0, 0)), of_experts)
    return number < since or bool(unloadable(shape, precision, 2, pp, release, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "fmt"), [(model, fmt) for model in MODELS for fmt in formats_of(model)])
def test_rank_files_hold_what_each_release_wants_or_the_plan_refuses_it(
    model: str, fmt, convert: Callable[..., tuple[Path, dict[str, Any]]]
):
    checked = 0
    for same in by_names(MODELS[model][0]):
        for layout in ((2, 1, 1), (2, 2, 1)):
            directory, config = convert(model, fmt, layout, same[0])
            for release in same:
                loads = held(directory, config, release, 2 * layout[1])
                checked += loads
                assert loads or refused(model, fmt, layout[1], release), (release, layout)
    assert checked


@pytest.mark.parametrize("model", ["mixtral", "qwen2_moe"])
def test_experts_that_ranks_divide_have_the_same_names(
    model: str, convert: Callable[..., tuple[Path, dict[str, Any]]]
):
    for same in by_names(MODELS[model][0]):
        assert held(*convert(model, "fp8", (4, 1, 2), same[-1]), same[-1], 4)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("fmt", "kv_cache"), [("fp8", "fp8"), ("none", "int8"), (MIXED, "auto")], ids=str)
def test_scales_of_caches_and_mixed_precision_have_their_names(
    model: str, fmt, kv_cache: str, convert: Callable[..., tuple[Path, dict[str, Any]]]
):
    for same in by_names(MODELS[model][0]):
        assert held(*convert(model, fmt, (1, 1, 1), same[-1], kv_cache), same[-1], 1)


def test_the_contract_toolchain_refuses_the_names_of_another_release(
    convert: Callable[..., tuple[Path, dict[str, Any]]],
):
    newest, config = convert("qwen2_moe", "fp8", (1, 1, 1), "0.16")
    contract.check(newest, config, 0, "0.16.0")
    with pytest.raises(RuntimeError, match=r"not provided.*layers\.0\.shared_expert\.fc"):
        contract.check(newest, config, 0, "0.15.0")
    older, config = convert("qwen2_moe", "fp8", (1, 1, 1), "0.15")
    with pytest.raises(RuntimeError, match=r"not provided.*layers\.0\.mlp\.shared_expert\.fc"):
        contract.check(older, config, 0, "0.16.0")


def test_every_architecture_and_every_release_that_builds_is_in_the_data():
    assert set(RELEASES) == set(releases())
    assert contract.facts("networks")["families"].keys() == FAMILIES.keys()
    for architecture, since in FAMILIES.items():
        builds = [each for each in releases() if contract.minor(each) >= since]
        assert set(builds) <= set(known(architecture)), architecture


def test_every_release_that_was_not_run_says_so():
    assert {name for name, each in RELEASES.items() if each["how"] == "run"} == {
        f"0.{n}" for n in range(8, 18)
    }
    for eras in contract.facts("networks")["families"].values():
        for era in eras:
            late = [name for name, each in RELEASES.items() if each["how"] == "read" and name in _span(era)]
            assert not late or "late" in era or set(late) <= set(era["not_checked"]), era


def _span(era):
    return [
        each
        for each in RELEASES
        if contract.minor(era["first"]) <= contract.minor(each) <= contract.minor(era["last"])
    ]
