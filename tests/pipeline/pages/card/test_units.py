"""Numbers and moments as text."""

from datetime import timedelta

import pytest

from pipeline.units import NONE, ago, moment, number
from tests.pipeline.pages.card.conftest import NOW


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, NONE), (0.0, "0"), (0.041534, "0.04153"), (351.42, "351.4"), (1234.5, "1,234"), (-2e6, "-2,000,000")],
)  # fmt: skip
def test_numbers(value: float | None, words: str):
    assert number(value) == words


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=23, minutes=59), "23 hours ago"),
        (timedelta(days=29), "29 days ago"),
        (timedelta(days=400), "1 year ago"),
        (-timedelta(days=61), "in 2 months"),
        (-timedelta(seconds=5), "in a moment"),
    ],
)
def test_moments_from_now(gap: timedelta, words: str):
    assert ago(NOW - gap, NOW) == words


def test_moments_are_utc():
    assert moment(NOW) == "2026-11-21 12:00 UTC"
