"""How far one next-token distribution is from another, given the first one's likeliest tokens; numpy only."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluate.gate import Record

# Shapes: s sequences, t scored positions per sequence, k most likely tokens of the baseline.
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

TAIL_FLOOR = 1e-6
"""Least mass of a tail: float32 log-probabilities leave about 1e-7 of noise in one minus their sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Log-probabilities that the source checkpoint gives some sequences."""

    target_logprob: Floats
    """Log-probability of each next token, (s, t), nats."""
    top_ids: Ints
    """Its most likely next tokens, best first, (s, t, k)."""
    top_logprob: Floats
    """Their log-probabilities, (s, t, k)."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Log-probabilities that the engine gives the same sequences."""

    target_logprob: Floats
    """Log-probability of each next token, (s, t)."""
    top_logprob: Floats
    """Log-probabilities of the baseline's `top_ids`, (s, t, k)."""
    best_ids: Ints
    """The engine's own most likely next token, (s, t)."""


def token_kl(baseline_top: Floats, candidate_top: Floats) -> Floats:
    """KL(baseline || candidate) per position, over top tokens and one bucket for the rest: (..., k) -> (...).

    Merging the tail into one bucket loses what happens inside it, so this is a lower bound of the divergence
    over the whole vocabulary (data processing inequality), and equal to it when k is the vocabulary. A
    candidate that gives a top token no probability is infinitely far; NaN stays NaN.

    How much it loses: of a 4-million-parameter model with 2,048 tokens, the 64 likeliest gave 93 % of the
    divergence of int8 and of int4 weights (2026-11-21).
    """
    base, cand = baseline_top.astype(np.float64), candidate_top.astype(np.float64)
    with np.errstate(invalid="ignore"):  # -inf minus -inf: both sides broken, and NaN is the right answer
        inside = (np.exp(base) * (base - cand)).sum(-1)
    base_tail, cand_tail = tail_mass(base), tail_mass(cand)
    # both tails are at least TAIL_FLOOR, so neither the ratio nor its logarithm is infinite
    tail = base_tail * np.log(base_tail / cand_tail)
    total: Floats = np.maximum(inside + tail, 0.0)  # the floor of a tail can leave a sum of -1e-6
    return total


def tail_mass(top_logprob: Floats) -> Floats:
    """Probability of all tokens outside the top ones, at least `TAIL_FLOOR`: (..., k) -> (...)."""
    tail: Floats = np.maximum(1.0 - np.exp(top_logprob.astype(np.float64)).sum(-1), TAIL_FLOOR)
    return tail


def records(baseline: Baseline, candidate: Candidate) -> list[Record]:
    """One record per sequence: sums of both negative log likelihoods and the KL, and the top-1 agreements."""
    # sums, not means: sequences are then weighted by their tokens wherever they are added
    kl = token_kl(baseline.top_logprob, candidate.top_logprob).sum(-1)
    agreed = (candidate.best_ids == baseline.top_ids[..., 0]).sum(-1)
    baseline_nll = -baseline.target_logprob.astype(np.float64).sum(-1)
    engine_nll = -candidate.target_logprob.astype(np.float64).sum(-1)
    positions = baseline.target_logprob.shape[1]
    return [
        Record(positions, float(base), float(engine), float(divergence), int(same))
        for base, engine, divergence, same in zip(baseline_nll, engine_nll, kl, agreed, strict=True)
    ]
