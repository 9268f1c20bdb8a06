"""Measures a checkpoint with trtllm-bench: its dataset, its command line, its report.

The options are those of `tensorrt_llm/bench/benchmark/throughput.py` @56851033 (about 1.2). Its other
command, `latency`, takes no options file (@000a01de, 1.0.0rc4), so it would measure another configuration
than ours: one request at a time is `throughput` with a concurrency of one. Engines of the engine path are not
measured with it: it reads `config.json` and the safetensors files of the source checkpoint, which an engine
no longer has. Never executed against the real tool.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BuildFailed
from pipeline.process import process
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm import figures
from pipeline.trtllm.session import command

TIMEOUT_S = 6 * 3600.0
MODEL = "engine"
"""What trtllm-bench calls the model; the checkpoint's directory is what counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The requests of one run."""

    batch: int
    """Requests under way at once."""
    prompt_len: int
    new_tokens: int
    repeats: int
    vocab_size: int

    @property
    def num_requests(self) -> int:
        """Requests that count; as many as are under way go before them."""
        return self.batch * self.repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured, and with what."""

    toolchain: Toolchain
    checkpoint: Path
    options: Path
    """YAML file of LLM API options."""
    settings: Mapping[str, Any]
    """The same options."""
    env: Mapping[str, str]
    mounts: Sequence[Path]


def dataset(load: Load) -> str:
    """JSON lines, one request each: random tokens, the same on every host."""
    pick = random.Random(0)
    lines = (
        {
            "task_id": number,
            "input_ids": [pick.randrange(load.vocab_size) for _ in range(load.prompt_len)],
            "output_tokens": load.new_tokens,
        }
        for number in range(load.num_requests)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def arguments(bench: Bench, load: Load, scratch: Path) -> list[str]:
    """Arguments of `trtllm-bench` for requests in `dataset.jsonl` and a report in `report.json` there."""
    settings = bench.settings
    kv_cache = settings.get("kv_cache_config") or {}
    scheduler = settings.get("scheduler_config") or {}
    experts = settings.get("moe_expert_parallel_size")
    return [
        *("--model", MODEL, "--model_path", str(bench.checkpoint), "--workspace", str(scratch)),
        *("throughput", "--backend", "pytorch"),
        *("--extra_llm_api_options", str(bench.options)),
        *("--dataset", str(scratch / "dataset.jsonl"), "--report_json", str(scratch / "report.json")),
        *("--max_batch_size", str(settings["max_batch_size"])),
        *("--max_num_tokens", str(settings["max_num_tokens"])),
        *("--max_seq_len", str(settings["max_seq_len"])),
        *("--tp", str(settings["tensor_parallel_size"]), "--pp", str(settings["pipeline_parallel_size"])),
        *(("--ep", str(experts)) if experts else ()),
        *("--kv_cache_free_gpu_mem_fraction", str(kv_cache.get("free_gpu_memory_fraction", 0.9))),
        "--enable_chunked_context" if settings.get("enable_chunked_prefill") else "--disable_chunked_context",
        # The command takes the policy in small letters, the LLM API in capitals.
        *("--scheduler_policy", scheduler.get("capacity_scheduler_policy", "GUARANTEED_NO_EVICT").lower()),
        *("--concurrency", str(load.batch), "--num_requests", str(load.num_requests)),
        # Without streaming the report has no times of tokens, see `figures.of_report`.
        *("--warmup", str(load.batch), "--streaming"),
    ]


def run(bench: Bench, load: Load, scratch: Path) -> dict[str, float]:
    """Runs it and returns all figures but memory; BuildFailed with the end of its log when it fails."""
    (scratch / "dataset.jsonl").write_text(dataset(load))
    report = scratch / "report.json"
    # A report of an earlier run must not pass for this one's.
    report.unlink(missing_ok=True)
    argv = command(
        bench.toolchain,
        "trtllm-bench",
        *arguments(bench, load, scratch),
        env=bench.env,
        mounts=(scratch, *bench.mounts),
    )
    job = process.Job(
        name="trtllm-bench",
        argv=argv,
        log=scratch / "bench.log",
        timeout_s=TIMEOUT_S,
        env=dict(os.environ),
        guarded=True,
    )
    process.run(job, on_line=lambda line: print(line, flush=True))  # noqa: T201 into the step's log
    if not report.is_file():
        tail = "\n".join(f"  | {line}" for line in process.tail(job.log))
        raise BuildFailed(f"trtllm-bench ended well without a report\n{tail}")
    return figures.of_report(json.loads(report.read_text()))
