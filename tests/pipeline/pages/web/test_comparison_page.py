"""A comparison on a page: figures first, each with what its verdict rests on."""

import dataclasses
from typing import Any

from artifacts.finding.compare import compare
from artifacts.version import Metric, VersionRecord
from pipeline.pages.web.comparison_page import sections
from pipeline.units import NONE
from tests.pipeline.published import FACTS, record


def rows(before: VersionRecord, after):
    """Rows by section and what."""
    found = sections(compare(before, after))
    assert list(found)[:3] == ["accuracy", "speed", "size"]
    return {(title, one.what): one for title, some in found.items() for one in some}


def test_figures_have_intervals_shares_and_reasons():
    found = rows(record(seed=1), record(seed=3))
    (kl,) = [one for (title, _), one in found.items() if title == "accuracy"]
    assert (kl.a, kl.verdict, kl.by) == ("0.02 (0.018 to 0.022)", "better", "-67%")
    assert "95 % from" in kl.why
    speed = found["speed", "output tokens per second in all, batch 4"]
    assert (speed.a, speed.b, speed.verdict, speed.by) == ("400", "133.3", "worse", "-67%")
    assert found["size", "bytes of the engine"].a == "6.0 MB"
    same = found["speed", "time between tokens, 95th percentile, ms, batch 1"]
    assert (same.verdict, same.by) == ("same", "")


def test_what_chance_explains_and_what_cannot_be_compared_is_said():
    base = record()
    near = tuple(Metric(m.name, m.value * 1.02, m.low, m.high and m.high * 1.04) for m in base.metrics)
    found = rows(base, dataclasses.replace(base, metrics=near, facts=FACTS | {"cpu": "avx512f"}))
    assert {one.verdict for (title, _), one in found.items() if title == "accuracy"} == {"within noise"}
    assert {one.verdict for (title, _), one in found.items() if title == "speed"} == {"not comparable"}
    assert found["host and limits", "cpu"].verdict == "differs"


def test_settings_that_one_does_not_have_are_a_dash():
    facts: dict[str, Any] = FACTS | {"toolchain": FACTS["toolchain"] | {"tensorrt": "10.9"}}
    row = rows(record(), record(facts=facts))["toolchain", "tensorrt"]
    assert (row.a, row.b, row.verdict) == (NONE, "10.9", "differs")
