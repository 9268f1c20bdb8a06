"""Two versions side by side: what differs, and what of it means something."""

import dataclasses

from artifacts.version import Metric
from pipeline.card.words import NONE
from pipeline.web.compare import compare
from tests.pipeline.published import FACTS, NAME, publication


def rows(registry, a, b):
    """Differences by group and what."""
    found = compare(registry.resolve(a), registry.resolve(b))
    return {(one.group, one.what): one for one in found}


def test_a_version_is_like_itself(registry):
    assert all(one.same and not one.verdict for one in rows(registry, f"{NAME}:1", f"{NAME}:1").values())


def test_intervals_decide_on_accuracy_and_shares_on_speed(registry):
    found = rows(registry, f"{NAME}:1", f"{NAME}:3")
    kl = found["accuracy", "token KL divergence, nats"]
    assert (kl.verdict, kl.a) == ("better", "0.02 (0.018 to 0.022)")
    speed = found["speed", "tokens/s, batch 4"]
    assert (speed.verdict, speed.text, speed.a, speed.b) == ("worse", "-67%", "400", "133.3")
    assert found["speed", "TTFT p95, ms, batch 1"].verdict == "worse"
    assert found["speed", "ITL p50, ms, batch 1"].same
    assert found["size", "engine on disk"].verdict == "worse", "two bytes more are more"
    assert found["recipe", "calibration.seed"].verdict == "differs"
    assert found["recipe", "format"].same


def test_overlapping_intervals_and_close_speeds_are_within_noise(registry):
    base = publication("noise", seed=1)
    close = [Metric(m.name, m.value * 1.04, *(x and x * 1.04 for x in (m.low, m.high))) for m in base.metrics]
    registry.publish(base)
    registry.publish(dataclasses.replace(base, metrics=close, engine_key="e" * 64))
    found = rows(registry, "noise:1", "noise:2")
    assert found["accuracy", "token KL divergence, nats"].verdict == "within noise"
    assert found["speed", "tokens/s, batch 1"].verdict == "within noise"


def test_what_only_one_has_is_said(registry):
    facts = FACTS | {"toolchain": {"torch": "2.13.0", "tensorrt": "10.9"}, "sm": 90}
    registry.publish(publication("other", metrics=[Metric("tokens_per_s@8", 5.0)], facts=facts))
    found = rows(registry, f"{NAME}:1", "other:1")
    assert (found["speed", "batch 1"].a, found["speed", "batch 1"].b) == ("measured", "not measured")
    assert (found["engine", "toolchain: tensorrt"].a, found["engine", "toolchain: tensorrt"].b) == (
        NONE,
        "10.9",
    )
    assert found["engine", "sm"].verdict == "differs"
    assert found["accuracy", "token KL divergence, nats"].verdict == "differs"
    assert ("size", "engine on disk") not in found
