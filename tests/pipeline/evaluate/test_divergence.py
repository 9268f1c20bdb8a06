"""KL from the likeliest tokens against the exact one over the whole vocabulary, on toy logits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.divergence import Baseline, Candidate, records, tail_mass, token_kl

VOCAB = 50


def logprobs(rng, shape, spread):
    logits = spread * rng.standard_normal((*shape, VOCAB))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def exact_kl(base, cand):
    return (np.exp(base) * (base - cand)).sum(-1)


def top(base, cand, k):
    """Top-k ids of the base, and both sides' log-probabilities there."""
    ids = np.argsort(-base, axis=-1)[..., :k]
    return ids, np.take_along_axis(base, ids, -1), np.take_along_axis(cand, ids, -1)


@given(st.integers(0, 2**32), st.integers(1, VOCAB), st.floats(0.1, 5), st.floats(0, 2))
def test_the_estimate_is_between_zero_and_the_exact_divergence(seed, k, spread, noise):
    rng = np.random.default_rng(seed)
    base = logprobs(rng, (3, 7), spread)
    cand = base + noise * rng.standard_normal(base.shape)
    cand -= np.log(np.exp(cand).sum(-1, keepdims=True))
    _, p, q = top(base, cand, k)
    estimate = token_kl(p.astype(np.float32), q.astype(np.float32))
    assert (estimate >= 0).all()
    assert (estimate <= exact_kl(base, cand) + 1e-5).all()  # float32 and the floor of the tail


@given(st.integers(0, 2**32), st.floats(0.1, 5))
def test_with_the_whole_vocabulary_it_is_exact(seed, spread):
    rng = np.random.default_rng(seed)
    base, cand = logprobs(rng, (5,), spread), logprobs(rng, (5,), spread)
    _, p, q = top(base, cand, VOCAB)
    np.testing.assert_allclose(token_kl(p, q), exact_kl(base, cand), rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**32), st.integers(1, VOCAB - 1))
def test_more_tokens_never_lower_the_estimate(seed, k):
    rng = np.random.default_rng(seed)
    base, cand = logprobs(rng, (5,), 1.0), logprobs(rng, (5,), 1.0)
    _, p, q = top(base, cand, k + 1)
    assert (token_kl(p[..., :k], q[..., :k]) <= token_kl(p, q) + 2e-6).all()


def test_a_coin_against_a_loaded_one_is_the_textbook_number():
    base, cand = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    want = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert token_kl(base, cand)[0] == pytest.approx(want)
    assert token_kl(base[:, :1], cand[:, :1])[0] == pytest.approx(want)  # the tail is the other side


def test_the_same_distribution_is_at_exactly_zero():
    p = logprobs(np.random.default_rng(0), (4, 9), 3.0).astype(np.float32)[..., :8]
    assert (token_kl(p, p) == 0).all()


def test_what_is_not_a_number_stays_so_and_no_probability_is_infinitely_far():
    base = np.log([[0.6, 0.3], [0.6, 0.3]])
    cand = np.array([[math.nan, -1.0], [-0.5, -math.inf]])
    assert np.isnan(token_kl(base, cand)[0])
    assert token_kl(base, cand)[1] == math.inf


def test_tail_mass_has_a_floor():
    np.testing.assert_allclose(tail_mass(np.log([[0.5, 0.3], [0.6, 0.4]])), [0.2, 1e-6])


def test_records_are_sums_over_each_sequence():
    rng = np.random.default_rng(1)
    base, cand = logprobs(rng, (2, 4), 1.0), logprobs(rng, (2, 4), 1.0)
    ids, p, q = top(base, cand, 6)
    best = ids[..., 0].copy()
    best[0, 1] += 1
    best[1, :3] += 1
    target = rng.integers(0, VOCAB, (2, 4, 1))
    of = [np.take_along_axis(side, target, -1)[..., 0] for side in (base, cand)]
    first, second = records(Baseline(of[0], ids, p), Candidate(of[1], q, best))
    assert (first.tokens, first.agreed, second.agreed) == (4, 3, 1)
    assert first.baseline_nll == pytest.approx(-of[0][0].sum())
    assert second.engine_nll == pytest.approx(-of[1][1].sum())
    assert second.kl == pytest.approx(token_kl(p, q)[1].sum())
