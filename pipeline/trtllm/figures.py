"""From times of tokens to the figures that `measurement` names; pure."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from pipeline.errors import BuildFailed


def of_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Figures of timed runs; each has `times`, seconds from its start to every token, and `total_s`.

    Tokens that come together count as come one after another at equal distances.
    """
    # A request may end at its first token: without a gap there is no median.
    if any(len(request) < 2 for run in runs for request in run["times"]):
        raise BuildFailed("a request got less than two tokens; there is no time between tokens to measure")
    first = [1000 * request[0] for run in runs for request in run["times"]]
    gaps = [1000 * gap for run in runs for request in run["times"] for gap in spread(request)]
    rate = median(sum(len(request) for request in run["times"]) / run["total_s"] for run in runs)
    return {
        "tokens_per_s": rate,
        "tokens_per_s_per_user": 1000 / median(gaps),
        "ttft_ms_p50": float(np.percentile(first, 50)),
        "ttft_ms_p95": float(np.percentile(first, 95)),
        "itl_ms_p50": float(np.percentile(gaps, 50)),
        "itl_ms_p95": float(np.percentile(gaps, 95)),
    }


def spread(times: Sequence[float]) -> list[float]:
    """Seconds from token to token; those that came in one step share the time since the step before."""
    steps = sorted(set(times))
    count = {step: times.count(step) for step in steps}
    return [(after - before) / count[after] for before, after in pairwise(steps) for _ in range(count[after])]


def of_report(report: Mapping[str, Any]) -> dict[str, float]:
    """Figures of trtllm-bench's `--report_json`; percentiles there are milliseconds, one value a request.

    Sections as `ReportUtility.get_statistics_dict` writes them (tensorrt_llm/bench/dataclasses/reporting.py
    @02499765, about 1.2). BuildFailed where a section is missing.
    """
    if "streaming_metrics" not in report:
        raise BuildFailed(
            "trtllm-bench reports no times of tokens (no section streaming_metrics); "
            "it must run with --streaming"
        )
    try:
        performance, streaming = report["performance"], report["streaming_metrics"]
        return {
            "tokens_per_s": float(performance["system_output_throughput_tok_s"]),
            "tokens_per_s_per_user": float(streaming["token_output_speed_tok_s"]),
            "ttft_ms_p50": float(streaming["ttft_percentiles"]["p50"]),
            "ttft_ms_p95": float(streaming["ttft_percentiles"]["p95"]),
            "itl_ms_p50": float(streaming["tpot_percentiles"]["p50"]),
            "itl_ms_p95": float(streaming["tpot_percentiles"]["p95"]),
        }
    except KeyError as exc:
        raise BuildFailed(
            f"trtllm-bench's report has no {exc.args[0]!r}; this version of it writes another report than "
            "the one known here"
        ) from exc
