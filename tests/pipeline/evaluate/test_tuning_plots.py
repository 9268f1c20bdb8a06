"""Plots of searches and gates: that every case draws, and the same numbers give the same picture."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluate.tuning_plots import accuracy_plot, throughput_plot
from pipeline.evaluate.tuning_search import Trial
from recipes.schema import Slo

PNG = b"\x89PNG\r\n"


def row(batch, speed) -> dict[str, Any]:
    names = ("ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95")
    return {
        "batch_size": batch,
        "tokens_per_s": speed,
        "tokens_per_s_per_user": speed / batch,
        **dict.fromkeys(names, 9.0),
    }


def trial(batch: int, *rows, why: str = "") -> Trial:
    measurement = {"rows": list(rows)} if rows else None
    return Trial(point={"max_batch_size": batch}, engine=None, measurement=measurement, why=why)


GOOD = trial(8, row(1, 90.0), row(8, 400.0))
FAST = trial(64, row(1, 88.0), row(64, 2600.0))
FAILED = trial(256, why="out of memory\nand more lines")


@pytest.mark.parametrize(
    ("trials", "slo"),
    [
        ([GOOD, FAST, FAILED], Slo(tokens_per_s_per_user=45)),
        ([GOOD], Slo(ttft_ms_p95=1)),
        ([FAILED], Slo()),
        ([trial(8, row(8, float("nan")))], Slo()),
    ],
)
def test_every_search_has_a_picture(trials: list[Any], slo: Slo, tmp_path: Path):
    throughput_plot(trials, "throughput", slo, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_the_same_search_gives_the_same_bytes_and_another_one_does_not(tmp_path: Path):
    pictures = []
    for slo in (Slo(), Slo(), Slo(tokens_per_s_per_user=45)):
        throughput_plot([GOOD, FAST], "throughput", slo, tmp_path / "a.png")
        pictures.append((tmp_path / "a.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def check(label: str, metric: str, value: float | None, half: float, outcome) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - half, value + half)
    limit = {"kl": 0.02, "top1_agreement": 0.97, "perplexity_ratio": 1.01}[metric]
    return {
        "label": label,
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "limit": limit,
        "outcome": outcome,
    }


@pytest.mark.parametrize("known", [True, False])
def test_a_gate_has_a_picture_even_without_a_finite_number(known: bool, tmp_path: Path):
    rows = [
        check("fp8", "kl", 0.004 if known else None, 0.001, "PASS" if known else "FAIL"),
        check("fp8", "top1_agreement", 0.975 if known else None, 0.01, "INCONCLUSIVE" if known else "FAIL"),
        check("int4_awq", "kl", 0.3 if known else None, 0.05, "FAIL"),
    ]
    accuracy_plot(rows, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(PNG)
