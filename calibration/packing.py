"""Orders and packs token sequences; the same seed gives the same rows on every machine."""

# S: sequences   T: tokens per sequence

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from calibration.errors import DataError


@dataclass(frozen=True, slots=True)
class Packed:
    """Token sequences of one length, and what did not fit."""

    tokens: npt.NDArray[np.int32]
    """[S, T]."""
    dropped_tail_tokens: int
    """Tokens after the last whole sequence."""
    left_out_sequences: int
    """Whole sequences beyond `max_sequences`."""


def order(count: int, seed: str) -> list[int]:
    """A permutation of range(count) that depends on nothing but its arguments."""
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest())


def pick(count: int, samples: int | Literal["all"], seed: str) -> list[int]:
    """Indices to take, in rising order: all of them, or `samples` drawn by the seed."""
    return list(range(count)) if samples == "all" else sorted(order(count, seed)[:samples])


def pack(rows: Sequence[Sequence[int]], seq_len: int, max_sequences: int | Literal["all"]) -> Packed:
    """Joins rows end to end and cuts sequences of `seq_len` tokens.

    Raises DataError when there are fewer whole sequences than asked for, or none.
    """
    stream = (
        np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.empty(0, np.int32)
    )
    whole = len(stream) // seq_len
    wanted = 1 if max_sequences == "all" else max_sequences
    if whole < wanted:
        raise DataError(
            f"{len(stream)} tokens make {whole} whole sequences of {seq_len}, {wanted} wanted; add "
            "data, or lower max_sequences or seq_len"
        )
    kept = whole if max_sequences == "all" else max_sequences
    tokens = stream[: kept * seq_len].reshape(kept, seq_len)
    return Packed(tokens, len(stream) - whole * seq_len, whole - kept)


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """Number of rows per power-of-two range of length, e.g. {"17-32": 5}."""
    bins: dict[int, int] = {}
    for length in lengths:
        top = 1 << max(0, length - 1).bit_length()
        bins[top] = bins.get(top, 0) + 1
    return {f"{top // 2 + 1 if top > 1 else 0}-{top}": bins[top] for top in sorted(bins)}
