"""Step measurement: how fast the built engine generates on this host; runs in a child process."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BuildFailed
from pipeline.runner import Progress, Timing, runner_of


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Writes measurement.json: how it was timed, and one row of figures per batch size."""
    engine, params = Path(job["inputs"]["engine"]), job["params"]
    timed = runner_of(engine).measure(engine, params, progress)
    how = {name: params[name] for name in ("prompt_len", "new_tokens", "repeats")}
    rows = [row(batch, timings, peak) for batch, (timings, peak) in sorted(timed.items())]
    (out / "measurement.json").write_text(json.dumps({**how, "rows": rows}, indent=2, allow_nan=False) + "\n")


def row(batch_size: int, timings: Sequence[Timing], peak_memory_bytes: int) -> dict[str, Any]:
    """Figures of one batch size.

    tokens_per_s counts the output tokens of all requests over the whole time, prompt included, as the median
    over repeats. tokens_per_s_per_user is how fast one request's tokens follow its first one, on average.
    """
    if not timings or any(not timing.itl_s for timing in timings):
        raise BuildFailed(
            f"batch {batch_size}: nothing was timed; at least 1 repeat of 2 new tokens is needed"
        )
    totals = [batch_size * (1 + len(t.itl_s)) / (t.ttft_s + math.fsum(t.itl_s)) for t in timings]
    itl_s = [seconds for timing in timings for seconds in timing.itl_s]
    ttft_ms = [1e3 * timing.ttft_s for timing in timings]
    return {
        "batch_size": batch_size,
        "tokens_per_s": float(np.median(totals)),
        "tokens_per_s_per_user": len(itl_s) / math.fsum(itl_s),
        **_percentiles("ttft_ms", ttft_ms),
        **_percentiles("itl_ms", [1e3 * seconds for seconds in itl_s]),
        "peak_memory_bytes": peak_memory_bytes,
    }


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{p}": float(np.percentile(values, p)) for p in (50, 95)}
