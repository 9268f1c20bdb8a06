"""Step measurement: how fast the built engine generates on this host; runs in a child process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.backend.loaded_engine import LoadedEngine, Progress
from pipeline.errors import BuildFailed
from pipeline.evaluate.load_engine import runner_of
from pipeline.step.judged import build_of

FIGURES = (
    "tokens_per_s", "tokens_per_s_per_user", "ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95",
    "peak_memory_bytes",
)  # fmt: skip
"""Per batch size: output tokens of all requests over the whole time, prompt included; tokens that one request
sees per second once they come; time to first token; inter-token latency; memory of all ranks together."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Writes measurement.json: how it was timed, and one row of figures per batch size."""
    directory = Path(job["inputs"]["engine"])
    params = within(json.loads((directory / "engine.json").read_text()), job["params"])
    with runner_of(directory).load(directory) as engine:
        document = {**measure(engine, params, progress), **build_of(directory)}
    (out / "measurement.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def within(built: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """How to time an engine of these limits: batch 1 and the largest, lengths shortened to fit."""
    room = built["max_seq_len"]
    prompt_len = min(params["prompt_len"], max(1, room // 2))
    return {
        "prompt_len": prompt_len,
        "new_tokens": min(params["new_tokens"], room - prompt_len),
        "repeats": params["repeats"],
        "batch_sizes": sorted({1, built["max_batch_size"]}),
    }


def measure(engine: LoadedEngine, params: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Times every batch size in `params`; a figure that the runner does not give is a KeyError."""
    how = {name: int(params[name]) for name in ("prompt_len", "new_tokens", "repeats")}
    if how["new_tokens"] < 2 or how["repeats"] < 1:
        raise BuildFailed(f"nothing to time with {how}; at least 1 repeat of 2 new tokens is needed")
    rows = []
    for done, batch in enumerate(params["batch_sizes"]):
        progress(done, len(params["batch_sizes"]), "batch sizes")
        found = engine.measure(batch, **how)
        rows.append({"batch_size": batch, **{name: found[name] for name in FIGURES}})
    progress(len(rows), len(rows), "batch sizes")
    return {**how, "rows": rows}
