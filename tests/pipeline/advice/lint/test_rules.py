"""Each rule: a recipe on which it fires, and recipes that took the advice or for which it is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.advice import lint
from pipeline.backend.memory_formulas import decoder_bytes
from pipeline.models.shape import ModelShape
from pipeline.trtllm.tuning_guide import STEPS, effect
from recipes.schema import Recipe
from tests.callables import Cli
from tests.pipeline.fit.shapes import LLAMA3_8B, QWEN_05B
from tests.pipeline.plans import ROOT

TRAFFIC = {"input_tokens": 1500, "output_tokens": 300}
LATENCY = {**TRAFFIC, "goal": "latency"}
SHARED = {**TRAFFIC, "shared_prefix_tokens": 750}


def recipe(**changes: Any) -> Recipe:
    """A tensorrt recipe in FP8 on one H100, with dotted keys changed; `o__NAME` is one of its options."""
    document: dict[str, Any] = {
        "version": 1,
        "name": "test/lint",
        "model": {"path": "./model"},
        "format": "fp8",
        "calibration": {"data": [{"path": "a.jsonl"}], "seq_len": 4096},
        "engine": {
            "backend": "tensorrt",
            "target": "h100",
            "max_batch_size": 256,
            "max_seq_len": 4096,
            "options": {},
        },
        "gate": {"data": {"path": "b.jsonl"}, "seq_len": 2048, "limits": {"kl": 0.1}},
    }
    for key, value in changes.items():
        if key.startswith("o__"):
            document["engine"]["options"][key.removeprefix("o__")] = value
        elif "__" in key:
            parent, leaf = key.split("__")
            document.setdefault(parent, {})[leaf] = value
        else:
            document[key] = value
    return Recipe.model_validate(document)


def fired(changed: Recipe, shape: ModelShape = LLAMA3_8B) -> dict[str, str]:
    """Rule -> line to change."""
    return {one.id: one.change for one in lint.lint(changed, shape)}


UNQUANTIZED = {"format": "none"}
TORCH = {"engine__backend": "trtllm_torch"}
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    # rule, a recipe on which it fires, changes of that recipe on which it does not
    ("fp8_weights", UNQUANTIZED, [{"format": "fp8"}, {"engine__target": "a100"}, {"engine__backend": "aoti"}]),
    ("fp8_cache", {}, [{"kv_cache": "fp8"}, {"format": "int4_awq"}, {"format": "int8_sq"}, {"engine__target": "host"}]),
    ("multiple_profiles", {}, [{"o__multiple_profiles": "enable"}, {"o__multiple_profiles": True}, {"traffic": TRAFFIC}, TORCH]),
    ("multiple_profiles", {"o__multiple_profiles": "disable", "traffic": TRAFFIC}, [{"o__multiple_profiles": "auto"}]),
    ("gemm_plugin_on", UNQUANTIZED, [{"o__gemm_plugin": "auto"}, {"o__gemm_plugin": "bfloat16"}, {"format": "fp8"}, TORCH]),
    ("gemm_plugin_off", {"o__gemm_plugin": "auto"}, [{"o__gemm_plugin": "disable"}, {"o__gemm_plugin": False}, UNQUANTIZED]),
    ("paged_context", {"traffic": SHARED}, [{"traffic": TRAFFIC}, {"o__use_paged_context_fmha": "enable"}, TORCH]),
    ("paged_context", {"engine__max_seq_len": 16384}, [{"engine__max_seq_len": 4096}, {"kv_cache": "int8"}]),
    ("paged_context", {"o__use_paged_context_fmha": "disable"}, [{"o__use_paged_context_fmha": "enable"}]),
    ("chunked_context", {"engine__max_seq_len": 131072, "o__max_num_tokens": 131072}, [{"o__max_num_tokens": 8192}, {"engine__max_seq_len": 8192}]),
    ("chunked_context", {**TORCH, "engine__max_seq_len": 16384}, [{"o__enable_chunked_prefill": True}, {"o__max_num_tokens": 16384}]),
    ("block_reuse", {**TORCH, "traffic": SHARED, "o__kv_cache_config": {"enable_block_reuse": False}}, [{"traffic": TRAFFIC}, {"o__kv_cache_config": {"enable_block_reuse": True}}, {"o__kv_cache_config": None}]),
    ("host_offload", {"traffic": SHARED}, [{"traffic": TRAFFIC}, {"engine__backend": "aoti"}]),
    ("host_offload", {**TORCH, "traffic": SHARED}, [{"o__kv_cache_config": {"host_cache_size": 1 << 30}}]),
    ("reduce_fusion", {"engine__tp": 4}, [{"engine__tp": 1}, {"o__reduce_fusion": "enable"}, TORCH]),
    ("user_buffer", {"engine__tp": 4, "o__reduce_fusion": "enable"}, [{"o__user_buffer": "enable"}, {"o__reduce_fusion": "disable"}, UNQUANTIZED]),
    ("gemm_swiglu", {}, [{"o__gemm_swiglu_plugin": "fp8"}, {"engine__target": "l40s"}, {"tune": {"space": {"options.gemm_swiglu_plugin": ["disable", "fp8"]}}}, {"format": "fp8_rowwise"}]),
    ("low_latency_gemm", {"o__gemm_swiglu_plugin": "fp8"}, [{"o__gemm_swiglu_plugin": "disable"}, {"o__low_latency_gemm_plugin": "fp8"}, {"engine__target": "l40s"}]),
    ("low_latency_alone", {"o__low_latency_gemm_plugin": "fp8"}, [{"o__gemm_swiglu_plugin": "fp8"}, {"o__low_latency_gemm_plugin": "disable"}]),
    ("fast_build", {"o__fast_build": True}, [{"o__fast_build": False}, TORCH]),
    ("ranks_without_nvlink", {"engine__target": "l40s", "engine__tp": 4}, [{"engine__tp": 1}, {"engine__target": "h100"}, {"engine__target": "host"}]),
    ("batch_for_throughput", {"traffic": TRAFFIC, "engine__max_batch_size": 64}, [{"engine__max_batch_size": 512}, {"traffic": LATENCY}, {"tune": {"space": {"max_batch_size": [64, 512]}}}, {"traffic": None}]),
    ("batch_for_throughput", {"traffic": TRAFFIC, "engine__max_batch_size": 2048}, [{"engine__max_batch_size": 1024}]),
    ("batch_for_latency", {"traffic": {**LATENCY, "concurrency": 8}}, [{"engine__max_batch_size": 16}, {"traffic": LATENCY}, {"traffic": {**TRAFFIC, "concurrency": 8}}]),
    ("tokens_per_pass", {"o__max_num_tokens": 16384}, [{"o__max_num_tokens": 8192}, {"o__max_num_tokens": "auto"}, {"tune": {"space": {"options.max_num_tokens": [8192, 16384]}}}]),
    ("speculation", {"traffic": {"input_tokens": 200, "output_tokens": 2000, "goal": "latency"}}, [{"traffic": LATENCY}, {"speculative": {"mode": "lookahead_decoding", "max_draft_len": 4}}, {"traffic": {"input_tokens": 200, "output_tokens": 2000}}]),
    ("queue_delay", {"traffic": LATENCY}, [{"traffic": TRAFFIC}, TORCH]),
    ("calibration_length", {"calibration__seq_len": 512}, [{"calibration__seq_len": 4096}, {"calibration__seq_len": 1800, "traffic": TRAFFIC}, UNQUANTIZED]),
    ("gate_length", {"traffic": TRAFFIC, "gate__seq_len": 256}, [{"gate__seq_len": 1500}, {"traffic": None}]),
    ("gate_size", {"gate__seq_len": 128, "gate__max_sequences": 32}, [{"gate__max_sequences": "all"}, {"gate__max_sequences": 128}]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "fires", "silent"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_rule_fires_where_its_advice_helps_and_nowhere_else(
    rule: str, fires: dict[str, Any], silent: list[dict[str, Any]]
):
    assert rule in fired(recipe(**fires))
    for change in silent:
        assert rule not in fired(recipe(**{**fires, **change})), change


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} == set(lint.rule_names())


@pytest.mark.parametrize(
    ("rule", "fires"), [case[:2] for case in CASES], ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_advice_says_what_gains_what_and_where_that_is_known_from(rule: str, fires: dict[str, Any]):
    (advice,) = [one for one in lint.lint(recipe(**fires), LLAMA3_8B) if one.id == rule]
    assert all(json.loads(json.dumps(advice.as_dict())).values())
    assert any(word in advice.effect for word in ("%", "GB", "figure", "measured"))


def test_only_a_family_that_fuses_the_all_reduce_is_told_to():
    assert "reduce_fusion" not in fired(recipe(engine__tp=2), QWEN_05B)


def test_a_recipe_that_took_the_advice_on_its_engine_gets_none():
    options = {"o__reduce_fusion": "enable", "o__user_buffer": "enable", "o__gemm_swiglu_plugin": "fp8",
               "o__low_latency_gemm_plugin": "fp8", "o__use_paged_context_fmha": "enable"}  # fmt: skip
    assert fired(recipe(engine__tp=4, kv_cache="fp8", traffic=TRAFFIC, **options)) == {}


def test_a_recipe_for_the_cpu_is_told_about_its_evidence_only():
    found = fired(
        recipe(engine__backend="aoti", engine__target="host", gate__max_sequences=8, gate__seq_len=64)
    )
    assert set(found) == {"gate_size"}


def test_lines_to_change_are_of_this_recipe():
    latency = {"traffic": {**LATENCY, "concurrency": 8}}
    assert fired(recipe(**latency))["batch_for_latency"] == "engine.max_batch_size: 16"
    assert (
        fired(recipe(engine__target="l40s", engine__tp=4))["ranks_without_nvlink"] == "engine: {tp: 1, pp: 4}"
    )
    assert fired(recipe(traffic=SHARED))["host_offload"].startswith(
        "enginery export test/lint@candidate --to triton"
    )
    assert "host_cache_size" in fired(recipe(**TORCH, traffic=SHARED))["host_offload"]
    assert (
        "draft_tokens_external"
        in fired(recipe(**TORCH, traffic={"input_tokens": 1, "output_tokens": 9, "goal": "latency"}))[
            "speculation"
        ]
    )


def test_figures_follow_from_the_model():
    told = {
        one.id: one for one in lint.lint(recipe(traffic={**SHARED, **LATENCY, "concurrency": 8}), LLAMA3_8B)
    }
    spared = decoder_bytes(256 - 16, 128256) / 1e9
    assert f"{spared:.1f} GB" in told["batch_for_latency"].effect
    assert f"{(32 << 30) // 131072:,} tokens" in told["host_offload"].text
    assert "50 % of its prompt" in told["host_offload"].effect


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("bf16", "profiles", "1,564 -> 1,861 tokens/s (+19.0 %); 31.3 -> 19.6 ms between tokens (-37.3 %)"),
        ("fp8", "fp8_kv", "3,390 -> 5,300 tokens/s (+56.4 %)"),
        ("batch_64", "batch_512", "1,944 -> 2,467 tokens/s (+26.9 %)"),
    ],
)
def test_effects_are_the_differences_of_the_guides_rows(before: str, after: str, said: str):
    assert effect(before, after).startswith(said)
    assert STEPS[before].tokens_per_s < STEPS[after].tokens_per_s


def test_the_command_tells_and_exits_0(cli: Cli, tmp_path: Path):
    file = ROOT / "recipes" / "production" / "70b_bf16_h100.yaml"
    done = cli("--store", tmp_path / "s", "lint", file)
    assert done.returncode == 0, done.stderr
    assert "engine.options.gemm_plugin: auto" in done.stdout
    assert "source: NVIDIA's tuning guide" in done.stdout


def test_the_command_answers_in_json_and_in_ids(cli: Cli, tmp_path: Path):
    file = ROOT / "recipes" / "production" / "8b_fp8_h100.yaml"
    answer = json.loads(cli("--store", tmp_path / "s", "--json", "lint", file).stdout)
    assert answer["name"] == "production/8b_fp8_h100"
    ids = cli("--store", tmp_path / "s", "-q", "lint", file)
    assert ids.stdout.split() == [one["id"] for one in answer["advice"]]
    assert ids.stderr == ""


def test_the_command_names_the_field_of_a_model_that_is_not_there(cli: Cli, tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text((ROOT / "recipes" / "production" / "8b_fp8_h100.yaml").read_text())
    done = cli("--store", tmp_path / "s", "lint", file)
    assert done.returncode == 2
    assert "model: " in done.stderr
