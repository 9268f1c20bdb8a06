"""Which versions suit a request, and in what order."""

from datetime import UTC, datetime
from typing import Any

import pytest

from artifacts.finding.match import closest, groups, match
from artifacts.finding.needs import same_gpu
from artifacts.version import Metric, VersionRecord

CPU = {
    "backend": "aoti",
    "format": "fp8",
    "tp": 2,
    "pp": 1,
    "world_size": 2,
    "device": "cpu",
    "cpu": "avx512f",
    "toolchain": {"torch": "2.13.0"},
    "max_batch_size": 8,
    "max_seq_len": 512,
    "weight_bytes_per_rank": [700, 800],
}
CUDA = {**CPU, "device": "cuda:0", "cpu": "amx_tile", "gpus": [{"name": "NVIDIA H200", "sm": 90}] * 2}
TENSORRT = {
    "backend": "tensorrt",
    "device": "cuda",
    "world_size": 1,
    "sm": 90,
    "toolchain": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0", "torch": "2.5.1"},
    "gpus": [{"name": "NVIDIA H100 80GB HBM3", "sm": 90, "driver": "560.35.05"}],
}


def record(
    name: str = "demo/fp8",
    number=1,
    facts: dict[str, Any] | None = None,
    collected_at: datetime | None = None,
    **metrics,
) -> VersionRecord:
    return VersionRecord(
        name=name,
        number=number,
        engine_key="1" * 64,
        recipe={},
        verdict="PASS",
        facts=CPU if facts is None else facts,
        lineage={},
        checks=[],
        metrics=tuple(Metric(metric, value) for metric, value in metrics.items()),
        aliases=(),
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
        model="Meta/Llama-8B",
        source={"revision": "c" * 40},
        collected_at=collected_at,
    )


@pytest.mark.parametrize(
    ("facts", "wanted", "reason"),
    [
        (CPU, {"format": "fp8", "tp": 2, "pp": 1, "world_size": 2, "backend": "aoti"}, None),
        (CPU, {"name": "demo/fp8"}, None),
        (CPU, {"name": "demo"}, "its name is 'demo/fp8', not 'demo'"),
        (CPU, {"format": "int8_sq"}, "format is 'fp8', not 'int8_sq'"),
        (CPU, {"world_size": 1}, "world_size is 2, not 1"),
        (CPU, {"target": "h100"}, "target is None, not 'h100'"),
        (CPU, {"max_batch_size": 8}, None),
        (CPU, {"max_batch_size": 9}, "max_batch_size is 8, less than 9"),
        ({}, {"max_seq_len": 9}, "max_seq_len is not recorded; the criterion is at least 9"),
        (CPU, {"cpu": ("avx2", "avx512f"), "gpus": []}, None),
        (CPU, {"cpu": ("avx2",)}, "needs a CPU with avx512f; this one has avx2"),
        (CPU, {"torch": "2.13.0"}, None),
        (CPU, {"torch": "2.12.0"}, "needs torch 2.13.0; the host has 2.12.0"),
        (CPU, {"torch": None}, "needs torch 2.13.0; the host has none"),
        (CPU, {"memory_bytes": 800}, None),
        (CPU, {"memory_bytes": 799}, "a rank's weights are 800 bytes, more than 799"),
        (CPU | {"memory_bytes_per_rank": [900, 800]}, {"memory_bytes": 900}, None),
        (
            CPU | {"memory_bytes_per_rank": [900, 800]},
            {"memory_bytes": 899},
            "a rank's weights and KV cache are 900 bytes, more than 899",
        ),
        (CPU | {"kv_cache": "int8"}, {"kv_cache": "int8"}, None),
        (CPU | {"kv_cache": "int8"}, {"kv_cache": "bfloat16"}, "kv_cache is 'int8', not 'bfloat16'"),
        (CUDA, {"cpu": ("avx2",), "gpus": ["NVIDIA H200"] * 2}, None),
        (CUDA, {"gpus": ["NVIDIA H200"]}, "needs 2 x NVIDIA H200; the host has NVIDIA H200"),
        (CUDA, {"gpus": ["NVIDIA L4"] * 2}, "needs 2 x NVIDIA H200; the host has NVIDIA L4, NVIDIA L4"),
        (CUDA, {"gpus": []}, "needs 2 x NVIDIA H200; the host has no GPU"),
        (CUDA, {"driver": "1.0"}, None),
        (TENSORRT, {"sm": [90], "tensorrt": ["10.7.0"], "tensorrt_llm": ["0.16.0"], "driver": "570.1"}, None),
        (TENSORRT, {"sm": [80, 80]}, "needs GPUs of sm_90; the host's are sm_80"),
        (TENSORRT, {"sm": []}, "needs GPUs of sm_90; the host's are none"),
        (TENSORRT, {"tensorrt": ["10.7.1"]}, "needs tensorrt 10.7.0; the host has 10.7.1"),
        (TENSORRT, {"tensorrt_llm": []}, "needs tensorrt_llm 0.16.0; the host has none"),
        (TENSORRT, {"driver": "550.54.15"}, "needs driver 560.35.05 or later; the host has 550.54.15"),
        (TENSORRT, {"driver": "560.28.03"}, None),
        (TENSORRT, {"driver": None}, None),
        (TENSORRT, {"torch": "2.13.0"}, None),
        (CPU, {"sm": [], "tensorrt": [], "tensorrt_llm": [], "driver": None}, None),
        (CPU, {"gpu": "h200"}, "runs on the CPU, not on h200"),
        (TENSORRT, {"gpu": "h100", "gpu_count": 1}, None),
        (TENSORRT, {"gpu": "NVIDIA H100 80GB HBM3"}, None),
        (TENSORRT, {"gpu": "h200"}, "needs NVIDIA H100 80GB HBM3; the criterion is h200"),
        (TENSORRT, {"gpu": "h100-pcie"}, "needs NVIDIA H100 80GB HBM3; the criterion is h100-pcie"),
        (TENSORRT | {"target": "h20"}, {"gpu": "h20"}, None),
        (TENSORRT | {"target": "h20"}, {"gpu": "l4"}, "needs h20; the criterion is l4"),
        (TENSORRT | {"world_size": 4}, {"gpu_count": 2}, "needs 4 GPUs; the criterion is 2"),
        (TENSORRT, {"runtime": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0"}}, None),
        (TENSORRT, {"runtime": {"tensorrt_llm": "1.2.1"}}, "needs tensorrt_llm 0.16.0, not 1.2.1"),
        (TENSORRT, {"runtime": {"torch": "2.13.0"}}, "is loaded by tensorrt_llm 0.16.0, not torch"),
        (TENSORRT | {"backend": "later"}, {"runtime": {"tensorrt": "10.7.0"}}, None),
        (TENSORRT | {"backend": "later"}, {"torch": "2.13.0"}, None),
        (
            TENSORRT | {"backend": "later"},
            {"tensorrt_llm": ["1.2.1"]},
            "needs tensorrt_llm 0.16.0; the host has 1.2.1",
        ),
        (CPU, {"runtime": {"torch": "2.13.0"}}, None),
        (CPU, {"runtime": {"tensorrt_llm": "1.2.1"}}, "is loaded by torch 2.13.0, not tensorrt_llm"),
    ],
)
def test_a_version_is_dropped_for_a_reason(facts: dict[str, Any], wanted: dict[str, Any], reason: str | None):
    (found,) = match([record(facts=facts)], wanted)
    assert found.dropped == (() if reason is None else (reason,))


def test_every_reason_is_given():
    (found,) = match([record()], {"format": "int8_sq", "tp": 1, "torch": None})
    assert len(found.dropped) == 3


def test_fastest_or_smallest_come_first_and_dropped_ones_last():
    slow = record(number=1, tokens_per_s=10.0, size_bytes=1.0)
    fast = record(number=2, tokens_per_s=90.0, size_bytes=9.0)
    unmeasured = record(number=3)
    other = record(number=4, facts={**CPU, "tp": 1}, tokens_per_s=1000.0, size_bytes=0.5)
    records = [unmeasured, other, slow, fast]
    assert [m.record.number for m in match(records, {"tp": 2})] == [2, 1, 3, 4]
    assert [m.record.number for m in match(records, {"tp": 2}, "size")] == [1, 2, 3, 4]
    assert [bool(m.dropped) for m in match(records, {"tp": 2})] == [False, False, False, True]


def test_unknown_facts_and_ranks_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown fact 'colour'; have name, model, backend, format"):
        match([], {"colour": "red"})
    with pytest.raises(
        ValueError, match="unknown rank 'beauty'; have speed, per_user, first_token, accuracy, size"
    ):
        match([], {}, "beauty")


@pytest.mark.parametrize(
    ("want", "name", "same"),
    [
        ("h200", "NVIDIA H200", True),
        ("h200", "NVIDIA GH200 480GB", False),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA H100 PCIe", False),
        ("h100-nvl", "NVIDIA H100 NVL", True),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("a100", "NVIDIA A100-SXM4-40GB", False),
        ("a100-40g", "NVIDIA A100-SXM4-40GB", True),
        ("l4", "NVIDIA L40S", False),
        ("", "NVIDIA L4", False),
    ],
)
def test_gpu_types_are_told_apart_by_whole_parts_of_names(want: str, name: str, same: bool):
    assert same_gpu(want, name) is same


@pytest.mark.parametrize(
    ("want", "reason"),
    [
        ("meta/llama-8b", None),
        ("Llama-8B", None),
        ("Meta/Llama-8B@" + "c" * 40, None),
        ("8B", "its model is 'Meta/Llama-8B', not '8B'"),
        ("Llama-8B@" + "d" * 40, f"its model is at commit {'c' * 40}, not {'d' * 40}"),
    ],
)
def test_a_model_is_named_whole_or_by_its_last_part(want: str, reason: str | None):
    (found,) = match([record()], {"model": want, "tp": 2})
    assert found.dropped == (() if reason is None else (reason,))


def test_another_model_is_the_only_reason():
    (found,) = match([record()], {"model": "other", "tp": 7, "slo": {"kl": 0.1}})
    assert [reason.fact for reason in found.reasons] == ["model"]


@pytest.mark.parametrize(
    ("slo", "reasons"),
    [
        ({"ttft_ms_p95": 300, "tokens_per_s": 50}, ()),
        ({"ttft_ms_p95": 299}, ("ttft_ms_p95 is 300, more than 299",)),
        ({"tokens_per_s": 51}, ("tokens_per_s is 50, less than 51",)),
        ({"itl_ms_p95@4": 5}, ("itl_ms_p95@4 was not measured",)),
    ],
)
def test_a_service_level_bounds_each_metric_from_its_side(slo: dict[str, Any], reasons: tuple[str, ...]):
    (found,) = match([record(ttft_ms_p95=300.0, tokens_per_s=50.0)], {"slo": slo})
    assert found.dropped == reasons


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown metric 'beauty'; have itl_ms_p50, .*ttft_ms_p95"):
        match([], {"slo": {"beauty": 1.0}})


def test_a_version_without_bytes_does_not_suit():
    (found,) = match([record(collected_at=datetime(2026, 5, 4, tzinfo=UTC))], {})
    assert found.dropped == ("gc removed its files on 2026-05-04",)


def test_dropped_versions_are_grouped_by_what_they_do_not_suit_and_the_closest_lack_least():
    wide = [record(number=n, facts={**CPU, "tp": n}) for n in range(3, 9)]
    other = [record(number=n, facts={**CPU, "tp": 9, "format": "none"}) for n in (20, 21)]
    found = match([*other, record(name="fits"), *wide], {"tp": 2, "format": "fp8"})
    assert [(group.facts, len(group.matches)) for group in groups(found)] == [
        (("tp",), 6),
        (("tp", "format"), 2),
    ]
    assert groups(found)[0].texts() == [
        *(f"tp is {n}, not 2" for n in (8, 7, 6)),
        "and 3 other reasons like these",
    ]
    assert [one.record.number for one in closest(found, 2)] == [8, 7]
    assert groups(match([record()], {})) == []
    assert closest(match([record()], {})) == []


def test_a_checkpoint_is_no_engine_unless_it_is_asked_for():
    taken = record(facts={"backend": "checkpoint", "format": "fp8", "tp": 1})
    (found,) = match([taken], {"tp": 2})
    assert found.dropped == ("it is a checkpoint: build an engine from it",)
    (found,) = match([taken], {"backend": "checkpoint"})
    assert found.dropped == ()
