"""A recipe for what no version offers, made from that of one that nearly does."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from artifacts.finding.match import match
from artifacts.version import VersionRecord
from pipeline.advice.suggest import Suggestion, formats_like, placed, suggest
from recipes.formats import FORMATS
from recipes.schema import Recipe
from tests.pipeline import published
from tests.present import present

CALIBRATION = {"data": [{"path": "calibration.jsonl"}]}
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "llama/fp8_tp2_h100",
    "model": {"repo": "meta/llama", "revision": "a" * 40},
    "format": "fp8",
    "calibration": CALIBRATION,
    "engine": {
        "backend": "tensorrt",
        "target": "h100",
        "tp": 2,
        "pp": 1,
        "ep": 1,
        "toolchain": "old",
        "max_batch_size": 16,
        "max_seq_len": 2048,
        "options": {"max_num_tokens": 4096},
    },
    "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.1}},
}
FACTS = {
    "backend": "tensorrt",
    "format": "fp8",
    "dtype": "bfloat16",
    "kv_cache": "bfloat16",
    "tp": 2,
    "pp": 1,
    "world_size": 2,
    "max_batch_size": 16,
    "max_seq_len": 2048,
    "target": "h100",
    "device": "cuda",
    "sm": 90,
    "gpus": [{"name": "NVIDIA H100 80GB HBM3", "sm": 90, "driver": "560.1"}] * 2,
    "toolchain": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0"},
    "memory_bytes_per_rank": [40 << 30, 40 << 30],
}
RECORD = VersionRecord(
    name="llama/fp8_tp2_h100",
    number=3,
    engine_key="1" * 64,
    recipe=RECIPE,
    verdict="PASS",
    facts=FACTS,
    lineage={},
    checks=[],
    metrics=(),
    aliases=(),
    published_at=datetime(2026, 1, 1, tzinfo=UTC),
    model="meta/llama",
    source={"repo": "meta/llama", "revision": "a" * 40},
)


def suggested(record=RECORD, siblings=(), **wanted) -> Suggestion:
    (found,) = match([record], wanted)
    return suggest(record, list(dict.fromkeys(reason.fact for reason in found.reasons)), wanted, siblings)


@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        ({"tp": 4}, {"engine.tp": 4, "name": "llama/fp8_tp4_h100"}),
        ({"world_size": 8}, {"engine.tp": 8, "name": "llama/fp8_tp8_h100"}),
        ({"max_batch_size": 64, "max_seq_len": 1024}, {"engine.max_batch_size": 64}),
        ({"format": "int4_awq"}, {"format": "int4_awq", "name": "llama/int4_awq_tp2_h100"}),
        ({"kv_cache": "float8_e4m3fn"}, {"kv_cache": "fp8", "name": "llama/fp8_tp2_h100_fp8"}),
        ({"gpu": "h200"}, {"engine.target": "h200", "name": "llama/fp8_tp2_h200"}),
        ({"gpu": "NVIDIA H200"}, {"engine.target": "h200", "name": "llama/fp8_tp2_h200"}),
        ({"gpu_count": 1}, {"engine.tp": 1, "name": "llama/fp8_tp1_h100"}),
        ({"memory_bytes": 15 << 30}, {"engine.tp": 8, "name": "llama/fp8_tp8_h100"}),
        ({"runtime": {"tensorrt_llm": "1.2.1"}}, {"engine.toolchain": None}),
        ({"name": "mine"}, {"name": "mine"}),
        ({"model": "a/b@" + "c" * 40}, {"model": {"repo": "a/b", "revision": "c" * 40}}),
        ({"slo": {"kl": 0.01}}, {"gate.limits.kl": 0.01}),
    ],
)
def test_what_is_missing_is_changed_and_nothing_else(wanted: dict[str, Any], changed: dict[str, Any]):
    found = suggested(**wanted)
    assert {one.place: one.after for one in found.changes} == changed
    assert found.open == ()
    assert Recipe.model_validate(yaml.safe_load(found.to_yaml())) == found.recipe


def test_another_backend_takes_nothing_of_the_old_one_along():
    found = suggested(runtime={"torch": "2.13.0"})
    engine = present(found.recipe).engine
    assert (engine.backend, engine.target, engine.toolchain, engine.options) == ("aoti", "host", None, {})
    assert found.notes[0] == "Build it with torch 2.13.0."


def test_a_run_time_without_engines_of_its_own_gets_a_checkpoint():
    cpu = dataclasses.replace(
        RECORD,
        facts={**FACTS, "backend": "aoti", "device": "cpu", "toolchain": {"torch": "2.13.0"}},
        recipe={**RECIPE, "engine": {"tp": 1, "backend": "aoti", "target": "host"}},
    )
    for version, backend in (("1.2.1", "tensorrt"), ("1.3.0", "trtllm_torch")):
        found = suggested(cpu, gpu="h200", runtime={"tensorrt_llm": version})
        engine = present(found.recipe).engine
        assert (engine.backend, engine.target) == (backend, "h200")
    assert "ask for one with --gpu" in suggested(cpu, runtime={"tensorrt_llm": "1.2.1"}).open[0]


def test_a_service_level_is_searched_for_within_what_is_asked():
    found = suggested(slo={"ttft_ms_p95": 300.0}, max_batch_size=8)
    assert present(present(found.recipe).tune).slo.ttft_ms_p95 == 300.0
    assert present(present(found.recipe).tune).space == {"max_batch_size": (16, 8)}
    assert any("by measuring" in note for note in found.notes)


def test_a_setting_that_is_asked_for_is_no_longer_searched():
    tuned = {"space": {"max_batch_size": [4, 16], "options.max_num_tokens": [2048]}, "budget": {"trials": 2}}
    record = dataclasses.replace(RECORD, recipe={**RECIPE, "tune": tuned})
    found = suggested(record, max_batch_size=32)
    assert present(found.recipe).engine.max_batch_size == 32
    assert list(present(present(found.recipe).tune).space) == ["options.max_num_tokens"]
    assert present(suggested(record, max_batch_size=32, runtime={"torch": "2.13.0"}).recipe).tune is None


def test_a_format_that_needs_calibration_gets_a_siblings():
    plain = dataclasses.replace(
        RECORD, recipe={**RECIPE, "format": "none", "calibration": None}, facts={**FACTS, "format": "none"}
    )
    alone = suggested(plain, format="int4_awq")
    assert alone.recipe is None
    assert "calibration is required" in alone.open[0]
    fed = suggested(plain, [RECORD], format="int4_awq")
    assert present(present(fed.recipe).calibration).data[0].path == "calibration.jsonl"
    assert "Its calibration is that of llama/fp8_tp2_h100:3." in fed.notes


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"dtype": "float16"}, "dtype: no recipe changes that"),
        ({"model": "a/b"}, "model: 'a/b' names no commit; ask for REPO@COMMIT"),
        ({"gpu": "tpu"}, "gpu: 'tpu' is no known GPU type; have a100"),
        ({"kv_cache": "float4"}, "kv_cache: 'float4' is not built; have float8_e4m3fn, int8"),
        ({"slo": {"size_bytes": 1.0}}, "slo: no recipe promises size_bytes 1; have ttft_ms_p95"),
        ({"format": "fp9"}, "format.str: Value error, unknown format 'fp9'"),
    ],
)
def test_what_no_recipe_changes_is_said(wanted: dict[str, Any], said: str):
    found = suggested(**wanted)
    assert found.recipe is None
    assert found.open[0].startswith(said)
    with pytest.raises(ValueError, match="there is no recipe: "):
        found.to_yaml()


def test_the_registrys_recipe_stays_as_it_is():
    suggested(tp=4, gpu="h200", runtime={"torch": "2.13.0"})
    assert RECIPE["engine"]["tp"] == 2
    assert RECIPE["engine"]["options"] == {"max_num_tokens": 4096}


def test_formats_with_weights_of_a_like_size_come_first_and_none_last():
    found = formats_like(RECIPE)
    assert set(found) == set(FORMATS) - {"fp8"}
    assert FORMATS[found[0]].weight_bits == 8
    assert found[-1] == "none"
    assert FORMATS[formats_like({"format": {"default": "int4_awq", "except": {}}})[0]].weight_bits == 4


def test_paths_of_a_recipe_start_where_its_file_was():
    recipe = {"model": {"path": "./model"}, "gate": {"data": {"path": "/abs/gate.jsonl"}}, "format": "fp8"}
    record = dataclasses.replace(published.record(recipe=recipe), source={"file": "/there/recipes/x.yaml"})
    assert placed(record).recipe == {
        "model": {"path": "/there/recipes/model"},
        "gate": {"data": {"path": "/abs/gate.jsonl"}},
        "format": "fp8",
    }
    elsewhere = dataclasses.replace(record, source={})
    assert placed(elsewhere).recipe == recipe
