"""Figures, command lines and refusals around TensorRT-LLM's runtime; nothing is started."""

import json
from pathlib import Path

import pytest

from pipeline.engines.tensorrt import tensorrt_runner as tensorrt
from pipeline.errors import BackendUnavailable, BuildFailed, SourceError
from pipeline.evaluate.measurement import FIGURES
from pipeline.process.host import Gpu, Host
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm import figures, gpu_memory
from pipeline.trtllm.bench import Bench, Load, arguments, dataset
from pipeline.trtllm.host_check import mismatches
from pipeline.trtllm.session import command
from tests.present import present

CHAIN = Toolchain(
    name="x", kind="environment", location="/opt/x", versions={"tensorrt_llm": "1.2.0", "tensorrt": "10.14.1"}
)
SETTINGS = {
    "max_batch_size": 8, "max_num_tokens": 512, "max_seq_len": 64, "tensor_parallel_size": 2, "pipeline_parallel_size": 1,
    "enable_chunked_prefill": False, "kv_cache_config": {"free_gpu_memory_fraction": 0.8},
    "scheduler_config": {"capacity_scheduler_policy": "MAX_UTILIZATION"},
}  # fmt: skip
LOAD = Load(batch=4, prompt_len=3, new_tokens=5, repeats=2, vocab_size=11)
PERCENTILES = {"p50": 2.0, "p90": 3.0, "p95": 4.0, "p99": 5.0}
REPORT = {
    "performance": {"system_output_throughput_tok_s": 100.0},
    "streaming_metrics": {
        "token_output_speed_tok_s": 25.0,
        "ttft_percentiles": PERCENTILES,
        "tpot_percentiles": {**PERCENTILES, "p50": 1.5},
    },
}


def test_a_report_of_trtllm_bench_gives_all_figures_but_memory():
    found = figures.of_report(REPORT)
    assert found.keys() | {"peak_memory_bytes"} == set(FIGURES)
    assert (found["tokens_per_s"], found["ttft_ms_p95"], found["itl_ms_p50"]) == (100.0, 4.0, 1.5)


def test_a_report_without_times_of_tokens_is_refused():
    with pytest.raises(BuildFailed, match="no section streaming_metrics"):
        figures.of_report({"performance": REPORT["performance"]})
    with pytest.raises(BuildFailed, match="has no 'performance'"):
        figures.of_report({"streaming_metrics": {}})


def test_figures_of_timed_runs_share_a_step_among_the_tokens_it_made():
    assert figures.spread([1.0, 2.0, 4.0, 4.0]) == [1.0, 1.0, 1.0]
    runs = [{"times": [[0.5, 0.75, 1.0], [0.5, 0.75, 1.0]], "total_s": 1.0}]
    found = figures.of_runs(runs)
    assert found.keys() | {"peak_memory_bytes"} == set(FIGURES)
    assert (found["tokens_per_s"], found["tokens_per_s_per_user"]) == (6, 4)
    assert (found["ttft_ms_p50"], found["itl_ms_p95"]) == (500, 250)
    with pytest.raises(BuildFailed, match="less than two tokens"):
        figures.of_runs([{"times": [[0.1]], "total_s": 0.1}])


def test_the_dataset_has_as_many_requests_as_count_and_is_always_the_same():
    lines = [json.loads(line) for line in dataset(LOAD).splitlines()]
    assert [line["task_id"] for line in lines] == list(range(8))
    assert {len(line["input_ids"]) for line in lines} == {3}
    assert {line["output_tokens"] for line in lines} == {5}
    assert all(0 <= token < 11 for line in lines for token in line["input_ids"])
    assert dataset(LOAD) == dataset(LOAD)


def test_trtllm_bench_is_told_every_size():
    bench = Bench(
        toolchain=CHAIN, checkpoint=Path("/e/checkpoint"), options=Path("/s/llm.yaml"), settings=SETTINGS, env={}, mounts=()
    )  # fmt: skip
    told = " ".join(arguments(bench, LOAD, Path("/s")))
    assert told == (
        "--model engine --model_path /e/checkpoint --workspace /s throughput --backend pytorch "
        "--extra_llm_api_options /s/llm.yaml --dataset /s/dataset.jsonl --report_json /s/report.json "
        "--max_batch_size 8 --max_num_tokens 512 --max_seq_len 64 --tp 2 --pp 1 "
        "--kv_cache_free_gpu_mem_fraction 0.8 --disable_chunked_context --scheduler_policy max_utilization "
        "--concurrency 4 --num_requests 8 --warmup 4 --streaming"
    )


def test_variables_reach_a_program_on_the_host_and_in_an_image():
    here = command(CHAIN, "python", "w.py", env={"A": "1"}, mounts=[Path("/m")])
    assert here == ["env", "-u", "PYTHONPATH", "A=1", "/opt/x/bin/python", "w.py"]
    image = Toolchain(name="i", kind="container", location="img:1", runtime="podman")
    there = command(image, "python", "w.py", env={"A": "1"}, mounts=[Path("/m")])
    assert there[:2] == ["podman", "run"]
    assert "type=bind,source=/m,target=/m" in there
    assert there[there.index("img:1") :] == ["img:1", "env", "A=1", "python3", "w.py"]


ABOUT = {
    "world_size": 2, "attention_windows": None, "gpu": "NVIDIA H100 80GB HBM3", "sm": 90,
    "driver": "550.54.15", "toolchain": dict(CHAIN.versions),
}  # fmt: skip


def host(
    name: str = "NVIDIA H100 80GB HBM3", sm: int = 90, driver: str = "550.54.15", count: int = 2
) -> Host:
    gpus = (Gpu(name, sm, 1 << 36, driver),) * count
    return Host(gpus=gpus, cpu="avx2", cores=2, memory_bytes=1 << 34, tools={})


def test_an_engine_loads_where_gpu_versions_and_driver_are_those_of_its_build():
    assert mismatches(ABOUT, host(), CHAIN) == []
    assert mismatches(ABOUT, host(driver="570.1"), CHAIN) == []
    assert mismatches(ABOUT, host(driver="550.40"), CHAIN) == []
    assert mismatches(ABOUT, host(driver="535.104"), CHAIN) == [
        "driver: built with 550.54.15, this host has the older 535.104"
    ]
    assert mismatches(ABOUT, host(count=1), CHAIN) == ["it has 2 ranks, this host has 1 GPUs"]
    assert mismatches(ABOUT, host("NVIDIA L40S", 89), CHAIN) == [
        "compute capability: built on 90, this host has 89",
        "GPU: built on NVIDIA H100 80GB HBM3, this host has NVIDIA L40S",
    ]
    other = Toolchain(
        name="y", kind="path", location="/y", versions={"tensorrt_llm": "1.2.0", "tensorrt": "10.14.2"}
    )
    assert mismatches(ABOUT, host(), other) == ["tensorrt: built with 10.14.1, toolchain y has 10.14.2"]


def test_an_engine_without_context_logits_cannot_be_scored(tmp_path: Path):
    (tmp_path / "engine.json").write_text(json.dumps(ABOUT | {"settings": {}}))
    (tmp_path / "config.json").write_text(json.dumps({"build_config": {"gather_context_logits": False}}))
    tensorrt.require(tmp_path, host(), CHAIN)
    assert "built without gather_context_logits" in tensorrt.runtime(tmp_path, CHAIN).unscored
    with pytest.raises(BackendUnavailable, match="cannot be loaded here\n  it has 2 ranks"):
        tensorrt.require(tmp_path, host(count=0), CHAIN)


def test_an_engine_that_checks_drafts_is_scored_by_its_twin_where_that_is(tmp_path: Path):
    asked = {"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": 11}
    (tmp_path / "engine.json").write_text(json.dumps(ABOUT | {"settings": asked, "scored": "scoring"}))
    exported = tensorrt.runtime(tmp_path, CHAIN)
    assert "the twin that is scored is not here" in exported.unscored
    (tmp_path / "scoring").mkdir()
    gathers = {"build_config": {"gather_context_logits": True}}
    (tmp_path / "scoring" / "config.json").write_text(json.dumps(gathers))
    (tmp_path / "scoring" / "engine.json").write_text(json.dumps(ABOUT))
    found = tensorrt.runtime(tmp_path, CHAIN)
    assert found.unscored == ""
    assert (found.job["model"], found.job["lookahead"]) == (str(tmp_path), [3, 3, 3])
    assert present(found.scoring)["model"] == str(tmp_path / "scoring")
    assert "lookahead" not in present(found.scoring)


def test_without_the_drivers_tools_gpu_memory_is_not_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="nvidia-smi does not tell"):
        gpu_memory.used_bytes()


def test_an_engine_whose_windows_nobody_wrote_down_is_refused(tmp_path: Path):
    lacking = {name: value for name, value in ABOUT.items() if name != "attention_windows"}
    (tmp_path / "engine.json").write_text(json.dumps(lacking))
    with pytest.raises(SourceError, match="its description lacks the attention windows; build its recipe"):
        tensorrt.require(tmp_path, host(), CHAIN)
