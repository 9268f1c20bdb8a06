"""How much each source gives, and which rows; depends on counts, weights and seed, not on the machine."""

import hashlib
import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divides `total` in proportion to the weights: whole numbers, whose sum is `total`.

    What rounding leaves goes to the largest remainders; of equal ones, to the earlier.
    """
    exact = [Fraction(weight) for weight in weights]
    quotas = [total * weight / sum(exact) for weight in exact]
    counts = [quota.numerator // quota.denominator for quota in quotas]
    remainder = total - sum(counts)
    by_remainder = sorted(range(len(quotas)), key=lambda index: (counts[index] - quotas[index], index))
    for index in by_remainder[:remainder]:
        counts[index] += 1
    return counts


def order(count: int, seed: str) -> list[int]:
    """A permutation of range(count) that depends on nothing but its arguments."""
    return sorted(range(count), key=lambda index: _rank(seed, index))


def pick(count: int, samples: int | Literal["all"], seed: str) -> list[int]:
    """Indices to take, in rising order: all of them, or `samples` drawn by the seed."""
    if samples == "all":
        return list(range(count))
    return sorted(heapq.nsmallest(samples, range(count), key=lambda index: _rank(seed, index)))


def _rank(seed: str, index: int) -> bytes:
    return hashlib.sha256(f"{seed}:{index}".encode()).digest()
