"""The gate: golden numbers, and properties that no recipe may break."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GateFailed
from pipeline.evaluate.gate import (
    MIN_SAMPLES,
    Record,
    Verdict,
    _tail_probability,
    differences,
    estimates,
    judge,
    read_records,
)
from recipes.schema import Limits

ALL = Limits(kl=0.05, top1_agreement=0.9, perplexity_ratio=1.1)


def records(num=64, *, kl: float = 0.01, drop=0.02, worse: float = 0.01, noise=0.2, seed=0) -> list[Record]:
    """Samples of 255 tokens around the given per-token figures, with relative noise from sample to sample."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num):
        around = 1 + noise * rng.standard_normal()
        nll = 255 * (3 + 0.3 * rng.standard_normal())
        agreed = round(255 * (1 - drop * max(around, 0)))
        rows.append(Record(255, nll, nll + 255 * worse * around, 255 * kl * max(around, 0), agreed))
    return rows


@st.composite
def any_records(draw, min_size=1):
    def one() -> Record:
        tokens = draw(st.integers(1, 300))
        loss = st.floats(0, 12)
        return Record(
            tokens,
            tokens * draw(loss),
            tokens * draw(loss),
            tokens * draw(loss),
            draw(st.integers(0, tokens)),
        )

    return [one() for _ in range(draw(st.integers(min_size, 20)))]


def test_the_numbers_of_two_samples_are_those_computed_by_hand():
    found = estimates([Record(10, 20.0, 21.0, 0.5, 9), Record(30, 60.0, 61.0, 1.5, 30)])
    assert found["kl"].value == pytest.approx(2.0 / 40)
    assert found["top1_agreement"].value == pytest.approx(39 / 40)
    assert found["perplexity_ratio"].value == pytest.approx(math.exp(2.0 / 40))
    assert found["baseline_perplexity"].value == pytest.approx(math.exp(2.0))
    assert found["engine_perplexity"].value == pytest.approx(math.exp(82.0 / 40))


def test_the_interval_of_a_mean_is_as_wide_as_students_t_says():
    rng = np.random.default_rng(1)
    sums = rng.normal(1.0, 0.1, 40) * 100
    found = estimates([Record(100, 0.0, 0.0, float(kl), 0) for kl in sums])["kl"]
    half = 2.0227 * np.std(sums / 100, ddof=1) / math.sqrt(40)  # t quantile, 39 degrees of freedom
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)  # 2000 resamples: a few percent


@pytest.mark.parametrize(("num", "t"), [(8, 2.3646), (10, 2.2622), (31, 2.0423), (121, 1.9799)])
def test_the_t_quantile_is_that_of_the_tables(num: int, t: float):
    from statistics import NormalDist

    reach = -NormalDist().inv_cdf(_tail_probability(num)) / math.sqrt(num / (num - 1))
    assert reach == pytest.approx(t, rel=4e-3)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        sums = rng.gamma(2.0, 0.5, 16) * 50  # skewed, as KL is; the mean is 1
        found = estimates([Record(50, 0.0, 0.0, float(kl), 0) for kl in sums])["kl"]
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 150 <= 0.99


@given(any_records(min_size=MIN_SAMPLES))
@settings(deadline=None, max_examples=30)
def test_an_identical_engine_passes_the_tightest_limits(rows):
    same = [replace(r, engine_nll=r.baseline_nll, kl=0.0, agreed=r.tokens) for r in rows]
    verdict = judge(Limits(kl=1e-12, top1_agreement=1.0, perplexity_ratio=1.0), same)
    assert verdict.outcome == "PASS"
    assert {c.metric: c.value for c in verdict.checks} == {
        "kl": 0.0,
        "top1_agreement": 1.0,
        "perplexity_ratio": 1.0,
    }


@given(any_records())
@settings(deadline=None, max_examples=30)
def test_every_interval_contains_its_value(rows):
    for name, estimate in estimates(rows).items():
        assert estimate.low <= estimate.value <= estimate.high, name


@given(any_records(min_size=2), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_samples_changes_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert judge(ALL, shuffled) == judge(ALL, rows)


RANK = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


@given(any_records(), st.floats(1e-3, 12), st.floats(0, 1), st.floats(0.1, 1))
@settings(deadline=None, max_examples=60)
def test_a_tighter_limit_never_gives_a_better_verdict(rows, kl, agreement, factor):
    loose = judge(Limits(kl=kl, top1_agreement=agreement, perplexity_ratio=1 + kl), rows)
    tight = judge(
        Limits(kl=kl * factor, top1_agreement=1 - (1 - agreement) * factor, perplexity_ratio=1 + kl * factor),
        rows,
    )
    assert RANK[tight.outcome] >= RANK[loose.outcome]


def test_each_outcome_is_reached_by_moving_the_limit_across_the_interval():
    rows = records(64, kl=0.01)
    low, high = estimates(rows)["kl"].low, estimates(rows)["kl"].high
    assert low < high
    assert judge(Limits(kl=high * 1.01), rows).outcome == "PASS"
    assert judge(Limits(kl=low * 0.99), rows).outcome == "FAIL"
    assert judge(Limits(kl=(low + high) / 2), rows).outcome == "INCONCLUSIVE"


def test_the_missing_samples_settle_it_when_they_come():
    rows = records(24, kl=0.01, noise=0.5)
    limit = Limits(kl=estimates(rows)["kl"].value * 1.1)
    (check,) = judge(limit, rows).checks
    assert check.outcome == "INCONCLUSIVE"
    assert check.more_samples is not None
    assert f"about {check.more_samples} more samples" in check.why
    assert judge(limit, rows * math.ceil(1.2 * (1 + check.more_samples / 24))).outcome == "PASS"


def test_a_value_on_its_limit_promises_no_number_of_samples():
    rows = records(24, kl=0.01, noise=0.5)
    (check,) = judge(Limits(kl=estimates(rows)["kl"].value), rows).checks
    assert (check.outcome, check.more_samples) == ("INCONCLUSIVE", None)


@pytest.mark.parametrize("field", ["baseline_nll", "engine_nll", "kl"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_value_that_is_not_finite_fails_every_check(field: str, value: float):
    rows = records(64)
    change: dict[str, Any] = {field: value}
    rows[17] = replace(rows[17], **change)
    verdict = judge(ALL, rows)
    assert [c.outcome for c in verdict.checks] == ["FAIL"] * 3
    assert "1 of 64 samples" in verdict.checks[0].why
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_a_perplexity_beyond_floating_point_is_a_fail():
    rows = [Record(10, 0.0, 1e6, 0.0, 10)] * 10
    assert judge(Limits(perplexity_ratio=2.0), rows).outcome == "FAIL"


def test_too_few_samples_prove_nothing_even_when_perfect():
    rows = [Record(10, 20.0, 20.0, 0.0, 10)] * (MIN_SAMPLES - 1)
    (check,) = judge(Limits(kl=0.1), rows).checks
    assert (check.outcome, check.more_samples) == ("INCONCLUSIVE", 1)
    assert judge(Limits(kl=0.1), rows + rows[:1]).outcome == "PASS"


def test_no_samples_are_not_a_pass():
    with pytest.raises(ValueError, match="no records"):
        judge(ALL, [])


def test_a_missing_metric_is_a_key_error(tmp_path: Path):
    row = {"tokens": 3, "baseline_nll": 1.0, "engine_nll": 1.0, "agreed": 3}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(KeyError, match="kl"):
        read_records(tmp_path / "samples.jsonl")


@pytest.mark.parametrize(("tokens", "agreed"), [(0, 0), (5, 6), (5, -1)])
def test_impossible_counts_are_refused(tokens: int, agreed: int):
    with pytest.raises(ValueError, match=f"{tokens} tokens of which {agreed}"):
        Record(tokens, 1.0, 1.0, 0.0, agreed)


def test_a_verdict_survives_json():
    for rows in (records(64), records(4), records(64, kl=math.nan)):
        verdict = judge(ALL, rows)
        again = Verdict.of_dict(json.loads(json.dumps(verdict.as_dict(), allow_nan=False)))
        assert again.as_dict() == verdict.as_dict()
        assert again.outcome == verdict.outcome


def test_only_a_pass_gets_past_require():
    judge(ALL, records(64)).require()
    with pytest.raises(GateFailed, match=r"FAIL: 1 of 3 checks over 64 samples") as failed:
        judge(Limits(kl=0.001, top1_agreement=0.9, perplexity_ratio=1.1), records(64)).require()
    assert "kl: 0.0" in str(failed.value)
    assert "at most 0.001" in str(failed.value)
    with pytest.raises(GateFailed, match="max_sequences"):
        judge(ALL, records(4)).require()


def test_a_verdict_without_checks_is_not_a_pass():
    assert Verdict((), 10).outcome == "FAIL"


def test_agreement_is_limited_from_below():
    rows = records(64, drop=0.05)
    assert judge(Limits(top1_agreement=0.90), rows).outcome == "PASS"
    (check,) = judge(Limits(top1_agreement=0.97), rows).checks
    assert check.outcome == "FAIL"
    assert "at least 0.97" in check.why


def test_a_verdict_over_a_twins_scores_says_so():
    records = [Record(10, 20.0, 40.0, 5.0, 2)] * 10
    verdict = judge(Limits(kl=0.1), records, "scoring")
    assert verdict.as_dict()["scored"] == "scoring"
    assert Verdict.of_dict(verdict.as_dict()) == verdict
    with pytest.raises(GateFailed, match=r"scores of the engine's twin, scoring/"):
        verdict.require()
    assert "scored" not in judge(Limits(kl=0.1), records).as_dict()


def test_a_verdict_says_what_every_scored_sequence_begins_with():
    records = [Record(10, 20.0, 20.0, 0.0, 10)] * 10
    verdict = judge(Limits(kl=0.1), records, begin="<s>")
    assert verdict.as_dict()["sequences_begin_with"] == "<s>"
    assert Verdict.of_dict(verdict.as_dict()) == verdict
    assert "sequences_begin_with" not in judge(Limits(kl=0.1), records).as_dict()


def test_two_engines_on_the_same_samples_differ_by_what_was_added_to_each():
    before = records(noise=1.0)
    after = [replace(record, kl=record.kl + 255 * 0.001) for record in before]
    found = differences(before, after)["kl"]
    assert found.value == pytest.approx(0.001)
    assert (found.low, found.high) == pytest.approx((0.001, 0.001))
    apart = [estimates(each)["kl"] for each in (before, after)]
    assert apart[1].low < apart[0].high  # the two intervals alone would not tell


def test_an_engine_does_not_differ_from_itself_and_turned_around_the_sign_turns():
    before, after = records(seed=1), records(seed=1, kl=0.03, drop=0.05)
    assert all((one.low, one.value, one.high) == (0, 0, 0) for one in differences(before, before).values())
    there, back = differences(before, after), differences(after, before)
    for name, one in there.items():
        assert (one.low, one.value, one.high) == pytest.approx(
            (-back[name].high, -back[name].value, -back[name].low)
        )


def test_other_samples_are_no_pairs():
    with pytest.raises(ValueError, match="not scored on the same sequences"):
        differences(records(seed=1), records(seed=2))
    with pytest.raises(ValueError, match="not scored on the same sequences"):
        differences([], [])
