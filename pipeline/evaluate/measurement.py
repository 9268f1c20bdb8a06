"""Step measurement: how fast the built engine generates on this host; runs in a child process."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.backend.loaded_engine import LoadedEngine
from pipeline.errors import BuildFailed
from pipeline.evaluate.load_engine import runner_of
from pipeline.process.meter import Progress
from pipeline.step.judged import build_of
from pipeline.step.step_parameters import MeasurementJob, Timing

FIGURES = (
    "tokens_per_s", "tokens_per_s_per_user", "ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95",
    "peak_memory_bytes",
)  # fmt: skip
"""Per batch size: output tokens of all requests over the whole time, prompt included; tokens that one request
sees per second once they come; time to first token; inter-token latency; memory of all ranks together."""


def build(job: MeasurementJob, progress: Progress) -> None:
    """Writes measurement.json: how it was timed, and one row of figures per batch size."""
    directory = job.inputs["engine"]
    built = json.loads((directory / "engine.json").read_text())
    timing, batch_sizes = within(built, job.params)
    with runner_of(directory).load(directory) as engine:
        document = {**measure(engine, batch_sizes, timing, progress), **build_of(directory)}
    (job.out / "measurement.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def within(built: Mapping[str, Any], asked: Timing) -> tuple[Timing, list[int]]:
    """How to time an engine of these limits: lengths shortened to fit, and batch sizes 1 and the largest."""
    room = built["max_seq_len"]
    # at most half of the room, so that at least as many new tokens are timed
    prompt_len = min(asked.prompt_len, max(1, room // 2))
    new_tokens = min(asked.new_tokens, room - prompt_len)
    timing = Timing(prompt_len=prompt_len, new_tokens=new_tokens, repeats=asked.repeats)
    return timing, sorted({1, built["max_batch_size"]})


def measure(
    engine: LoadedEngine, batch_sizes: Sequence[int], timing: Timing, progress: Progress
) -> dict[str, Any]:
    """Times every batch size; a figure that the runner does not give is a KeyError."""
    how = timing.document()
    if timing.new_tokens < 2 or timing.repeats < 1:
        raise BuildFailed(f"nothing to time with {how}; at least 1 repeat of 2 new tokens is needed")
    rows = []
    for done, batch in enumerate(batch_sizes):
        progress(done, len(batch_sizes), "batch sizes")
        figures = engine.measure(batch, **how)
        rows.append({"batch_size": batch, **{name: figures[name] for name in FIGURES}})
    progress(len(rows), len(rows), "batch sizes")
    return {**how, "rows": rows}
