"""Numbers, moments and events in words."""

from datetime import timedelta

import pytest

from artifacts.version import Event
from pipeline.card.words import NONE, ago, moment, number, said
from tests.pipeline.card.conftest import NOW


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, NONE), (0.0, "0"), (0.041534, "0.04153"), (351.42, "351.4"), (1234.5, "1,234"), (-2e6, "-2,000,000")],
)  # fmt: skip
def test_numbers(value, words):
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
def test_moments_from_now(gap, words):
    assert ago(NOW - gap, NOW) == words


def test_moments_are_utc():
    assert moment(NOW) == "2026-11-21 12:00 UTC"


@pytest.mark.parametrize(
    ("kind", "detail", "words"),
    [
        ("published", {"number": 3, "verdict": "PASS"}, "version 3 published, verdict PASS"),
        ("alias_moved", {"alias": "prod", "was": None, "now": 1}, "@prod set to version 1"),
        ("alias_moved", {"alias": "prod", "was": 1, "now": 2, "waived": [{"rule": "signed_by"}]},
         "@prod moved from version 1 to 2, waived: signed_by"),
        ("rolled_back", {"alias": "prod", "was": 2, "now": 1}, "@prod rolled back from version 2 to 1"),
        ("refused", {"alias": "prod", "at": 1, "number": 2, "broken": [{"rule": "verdict", "why": "it is FAIL"}]},
         "@prod refused version 2: verdict: it is FAIL"),
        ("waived", {"alias": "prod", "number": 2, "rule": "verdict", "reason": "a test",
                    "until": "2026-12-01T10:00:00+00:00"},
         "waiver of verdict for version 2 at @prod until 2026-12-01 10:00 UTC: a test"),
        ("waived", {"alias": "prod", "number": 2, "rule": "verdict", "ended": True},
         "waiver of verdict for version 2 at @prod ended"),
        ("collected", {"number": 2, "freed": 900, "why": ""}, "collected: number 2, freed 900"),
        ("rebuild_needed", {}, "rebuild needed"),
    ],
)  # fmt: skip
def test_events(kind, detail, words):
    assert said(Event(seq=1, at=NOW, name="x", kind=kind, by="ana@ops", detail=detail)) == words
