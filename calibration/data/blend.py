"""Divides a blend among its sources and draws rows; depends only on counts, weights and seed."""

import hashlib
import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to the weights into integers whose sum is `total`.

    Units left by rounding down go to the largest remainders; among equal ones, to the earlier.
    """
    # Fractions, because rounding of floats could differ between machines, and the key does not name them.
    exact = [Fraction(weight) for weight in weights]
    quotas = [total * weight / sum(exact) for weight in exact]
    counts = [quota.numerator // quota.denominator for quota in quotas]
    remainder = total - sum(counts)
    by_remainder = sorted(range(len(quotas)), key=lambda index: (counts[index] - quotas[index], index))
    for index in by_remainder[:remainder]:
        counts[index] += 1
    return counts


def order(count: int, seed: str) -> list[int]:
    """A permutation of range(count) that depends only on the arguments."""
    return sorted(range(count), key=lambda index: _rank(seed, index))


def pick(count: int, samples: int | Literal["all"], seed: str) -> list[int]:
    """Indices in ascending order: all of them, or `samples` drawn by the seed."""
    if samples == "all":
        return list(range(count))
    return sorted(heapq.nsmallest(samples, range(count), key=lambda index: _rank(seed, index)))


def _rank(seed: str, index: int) -> bytes:
    # A hash, not `random`: its sequence for a seed may change between versions of Python.
    return hashlib.sha256(f"{seed}:{index}".encode()).digest()
