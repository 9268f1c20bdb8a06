"""Pictures are well-formed, show what was measured, and say it to those who cannot see."""

import dataclasses
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.version import Metric
from pipeline.pages.card import card_plots
from pipeline.pages.card.card_content import Card
from pipeline.pages.card.svg import Axis, around, from_zero
from tests.pipeline import published

SVG = "{http://www.w3.org/2000/svg}"
POSITIVE = st.floats(1e-9, 1e12)


def drawn(text: str):
    """The picture parsed, and the words in it."""
    picture = ET.fromstring(text)
    return picture, [one.text for one in picture.iter(f"{SVG}text")]


def test_accuracy_shows_value_interval_and_limit(card: Callable[..., Card]):
    (panel,) = card_plots.accuracy([card().record])
    picture, words = drawn(panel)
    assert {"Token KL divergence, nats", "lower is better", "limit 0.05", "0.02"} <= set(words)
    assert picture.get("aria-label") == "Token KL divergence, nats: 0.02 (0.018 to 0.022), limit 0.05"
    low, high = (
        float(one.get(end)) for one in picture.iter(f"{SVG}line") if one.get("class") == "interval s0"
        for end in ("x1", "x2") if one.get("y1") == one.get("y2")
    )  # fmt: skip
    (dot,) = picture.iter(f"{SVG}circle")
    assert low < float(dot.get("cx")) < high < float(next(picture.iter(f"{SVG}rect")).get("x"))


def test_two_versions_differ_in_more_than_colour(card: Callable[..., Card]):
    first, second = card(seed=1).record, card(seed=2).record
    picture, _ = drawn(card_plots.accuracy([first, second])[0])
    assert (len(list(picture.iter(f"{SVG}circle"))), len(list(picture.iter(f"{SVG}polygon")))) == (1, 1)


def test_values_that_are_not_finite_are_not_drawn(card: Callable[..., Card]):
    broken = {"metric": "kl", "value": None, "low": None, "high": None, "limit": 0.1, "outcome": "FAIL"}
    assert card_plots.accuracy([card(checks=[broken]).record]) == []


def test_throughput_has_a_point_per_batch(card: Callable[..., Card]):
    picture, words = drawn(card_plots.throughput([card().record]))
    assert len(list(picture.iter(f"{SVG}circle"))) == 2
    assert {"batch 1", "batch 4"} <= set(words)
    assert card_plots.throughput([card(metrics=[], seed=2).record]) == ""


def test_bars_are_as_long_as_their_bytes():
    picture, words = drawn(card_plots.bars([("source", 800, 2), ("engine", 400, 0)]))
    lengths = [float(one.get("width")) for one in picture.iter(f"{SVG}rect")]
    assert lengths[0] == pytest.approx(2 * lengths[1])
    assert {"800 B", "400 B"} <= set(words)
    assert card_plots.bars([]) == ""


def test_memory_is_weights_and_then_the_cache(card: Callable[..., Card]):
    picture, words = drawn(card_plots.memory(card().record))
    weights, cache, *_ = picture.iter(f"{SVG}rect")
    ends = float(weights.get("x")) + float(weights.get("width"))
    assert float(cache.get("x")) == pytest.approx(ends)
    assert words[1] == "3.0 MB weights + 2.0 MB KV cache"
    assert card_plots.memory(card(seed=2, facts={}).record) == ""


def test_hostile_labels_stay_text():
    picture, words = drawn(card_plots.bars([("</text><script>alert(1)</script>", 1, 0)]))
    assert "</text><script>alert(1)</script>" in words
    assert list(picture.iter(f"{SVG}script")) == []


@given(st.lists(POSITIVE, min_size=1, max_size=6))
def test_axes_hold_their_values_and_have_round_ticks(values):
    for axis in (from_zero(values, 0, 100), around(values, 0, 100)):
        assert all(-1e-6 <= axis.at(value) <= 100 + 1e-6 for value in values)
        ticks = axis.ticks()
        assert all(axis.low - 1e-9 * axis.high <= tick <= axis.high * (1 + 1e-9) for tick in ticks)
        assert ticks == sorted(set(ticks))


def test_ticks_are_few_and_round():
    assert Axis(0, 10, 0, 1).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Axis(1, 100, 0, 1, log=True).ticks() == [1, 2, 5, 10, 20, 50, 100]


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5))
def test_any_measurement_is_drawn_inside_the_picture(points):
    record = dataclasses.replace(
        published.record(),
        metrics=tuple(
            Metric(f"{name}@{batch}", value)
            for batch, point in enumerate(points, start=1)
            for name, value in zip(("tokens_per_s", "tokens_per_s_per_user"), point, strict=True)
        ),
    )
    text = card_plots.throughput([record])
    assert "nan" not in text
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', text)]
    assert len(places) == len(points)
    assert all(0 <= x <= card_plots.WIDE and 0 <= y <= 300 for x, y in places)
