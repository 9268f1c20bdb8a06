"""What differs between two versions, and when a difference is more than noise."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from artifacts.finding.compare import compare, difference, same_samples
from artifacts.version import Metric, VersionRecord
from tests.present import present

GATE = {"data": {"path": "gate.jsonl"}, "seq_len": 256, "limits": {"kl": 0.1}}
RECIPE = {
    "version": 1,
    "name": "demo/fp8",
    "model": {"repo": "a/b", "revision": "0" * 40},
    "format": "fp8",
    "engine": {"tp": 2, "max_batch_size": 4},
    "gate": GATE,
}
FACTS: dict[str, Any] = {
    "format": "fp8",
    "tp": 2,
    "device": "cuda",
    "toolchain": {"tensorrt_llm": "1.0.0"},
    "gpus": [{"name": "NVIDIA H200", "sm": 90}] * 2,
}
BEFORE = VersionRecord(
    name="demo/fp8",
    number=1,
    engine_key="1" * 64,
    recipe=RECIPE,
    verdict="PASS",
    facts=FACTS,
    lineage={"baseline": "b" * 64},
    checks=[],
    metrics=(
        Metric("kl", 0.040, 0.036, 0.044),
        Metric("tokens_per_s@1", 50.0),
        Metric("tokens_per_s@4", 100.0),
        Metric("ttft_ms_p95@4", 10.0),
        Metric("size_bytes", 1000.0),
    ),
    aliases=(),
    published_at=datetime(2026, 1, 1, tzinfo=UTC),
    model="a/b",
)


def after(**changes) -> VersionRecord:
    metrics = {metric.name: metric for metric in BEFORE.metrics}
    metrics |= {metric.name: metric for metric in changes.pop("metrics", ())}
    whole = {"number": 2, "engine_key": "2" * 64, "metrics": tuple(metrics.values()), **changes}
    return dataclasses.replace(BEFORE, **whole)


def test_a_version_differs_in_nothing_from_itself():
    found = compare(BEFORE, BEFORE)
    assert found.same_engine
    assert found.summary == "demo/fp8:1 is the same engine as demo/fp8:1"
    assert (found.origin, found.recipe, found.toolchain, found.needs) == ((), (), (), ())
    assert {one.judgement for one in (*found.accuracy, *found.speed, *found.size)} == {"same"}


def test_settings_are_named_by_their_dotted_place():
    recipe = {**RECIPE, "name": "other", "engine": {"tp": 4, "max_batch_size": 4}, "kv_cache": "fp8"}
    facts: dict[str, Any] = {
        **FACTS,
        "tp": 4,
        "toolchain": {"tensorrt_llm": "1.2.1"},
        "gpus": FACTS["gpus"] * 2,
    }
    found = compare(BEFORE, after(recipe=recipe, facts=facts, source={"licence": "mit"}))
    assert [one.text for one in found.recipe] == ["engine.tp: 2 -> 4", "kv_cache: not given -> fp8"]
    assert [one.text for one in found.toolchain] == ["tensorrt_llm: 1.0.0 -> 1.2.1"]
    assert [one.text for one in found.needs] == ["tp: 2 -> 4"]
    assert [one.text for one in found.origin] == ["licence: not given -> mit"]


def test_a_mixed_format_is_one_setting():
    recipe = {**RECIPE, "format": {"default": "int4_awq", "except": {"lm_head": "none"}}}
    (found,) = compare(BEFORE, after(recipe=recipe)).recipe
    assert found.text == "format: fp8 -> int4_awq except lm_head: none"


@pytest.mark.parametrize(
    ("metric", "judgement"),
    [
        (Metric("kl", 0.042, 0.038, 0.046), "noise"),
        (Metric("kl", 0.060, 0.056, 0.064), "worse"),
        (Metric("kl", 0.020, 0.018, 0.022), "better"),
        (Metric("kl", 0.040, 0.036, 0.044), "same"),
        (Metric("kl", 0.060), "unsure"),
    ],
)
def test_accuracy_differs_when_the_interval_of_the_difference_leaves_out_nothing(
    metric: Metric, judgement: str
):
    (found,) = compare(BEFORE, after(metrics=[metric])).accuracy
    assert found.judgement == judgement


def test_paired_samples_tell_what_two_intervals_cannot():
    candidate = after(metrics=[Metric("kl", 0.042, 0.038, 0.046)])
    (found,) = compare(BEFORE, candidate, {"kl": Metric("kl", 0.002, 0.001, 0.003)}).accuracy
    assert found.judgement == "worse"
    assert "same samples, paired" in found.text
    assert "more than noise" in found.text


def test_scores_on_other_text_are_not_compared():
    other = {**RECIPE, "gate": {**GATE, "data": {"path": "other.jsonl"}}}
    metrics = [Metric("kl", 0.9, 0.8, 1.0)]
    (found,) = compare(BEFORE, after(recipe=other, lineage={"baseline": "c" * 64}, metrics=metrics)).accuracy
    assert found.judgement == "unsure"
    assert "scored on other text" in found.text


def test_samples_are_the_same_by_the_baseline_or_by_what_recipes_ask_for():
    looser = {**RECIPE, "gate": {**GATE, "limits": {"kl": 0.5}}}
    assert same_samples(BEFORE, after(recipe=looser, lineage={}))
    assert same_samples(BEFORE, after(recipe={}))
    assert not same_samples(BEFORE, after(recipe={**RECIPE, "gate": {**GATE, "seq_len": 128}}, lineage={}))
    assert not same_samples(after(recipe={}, lineage={}), after(recipe={}, lineage={}))


def test_the_square_and_add_interval_keeps_its_lopsidedness():
    found = difference(Metric("kl", 0.5, 0.4, 0.9), Metric("kl", 1.0, 0.9, 1.2))
    # down: hypot(1.0 - 0.9, 0.9 - 0.5), up: hypot(1.2 - 1.0, 0.5 - 0.4)
    assert (present(found).value, present(found).low, present(found).high) == pytest.approx(
        (0.5, 0.5 - 0.41231056, 0.5 + 0.22360680)
    )
    assert difference(Metric("kl", 0.5), Metric("kl", 1.0, 0.9, 1.2)) is None


def test_speeds_are_compared_at_batch_sizes_that_both_were_timed_at():
    faster = after(
        metrics=[
            Metric("tokens_per_s@4", 250.0),
            Metric("ttft_ms_p95@4", 10.3),
            Metric("tokens_per_s@8", 9.0),
        ]
    )
    found = compare(BEFORE, faster)
    assert [(one.name, one.judgement) for one in found.speed] == [
        ("tokens_per_s@4", "better"),
        ("ttft_ms_p95@4", "noise"),
        ("tokens_per_s@1", "same"),
    ]
    assert found.speed[0].text == "tokens_per_s@4: 100 -> 250 (2.5 times as much): better"
    assert "tokens_per_s@4 better (2.5 times as much)" in found.summary


def test_speeds_on_other_hardware_are_not_compared():
    facts = {**FACTS, "gpus": [{"name": "NVIDIA L4", "sm": 89}] * 2}
    found = compare(BEFORE, after(facts=facts, metrics=[Metric("tokens_per_s@4", 10.0)]))
    assert {one.judgement for one in found.speed} == {"unsure"}
    assert "timed on other hardware" in found.speed[0].text


def test_a_smaller_engine_is_better_by_any_byte():
    (found,) = compare(BEFORE, after(metrics=[Metric("size_bytes", 999.0)])).size
    assert (found.judgement, found.text) == ("better", "size_bytes: 1,000 -> 999 (-0.1%): better")


def test_the_comparison_is_json():
    answer = json.loads(json.dumps(compare(BEFORE, after(facts={**FACTS, "tp": 4})).as_dict()))
    assert answer["needs"] == [{"place": "tp", "before": 2, "after": 4}]
    assert answer["summary"].startswith("demo/fp8:2 against demo/fp8:1: ")
