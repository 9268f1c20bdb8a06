"""Makes token sequences of equal length from rows: packed end to end, or one per row with padding.

Each sequence begins like a text for the model: with `prefix`, the tokens that the tokenizer puts in front.
"""

# S: sequences   T: tokens per sequence

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from calibration.errors import DataError

Ids = npt.NDArray[np.int32]
"""Token ids."""

Prefix = tuple[int, ...]
"""Tokens in front of every sequence: BOS; empty where the tokenizer adds none."""

Side = Literal["right", "left"]


@dataclass(frozen=True, slots=True)
class Packed:
    """Token sequences of equal length, and counts of tokens that were left out."""

    tokens: npt.NDArray[np.int32]
    """[S, T]."""
    dropped_tail_tokens: int
    """Tokens after the last whole sequence."""
    left_out_sequences: int
    """Sequences beyond `max_sequences`."""
    row_tokens: int
    """Tokens of rows in the sequences, without prefixes and padding."""
    lengths: npt.NDArray[np.int32] | None = None
    """[S]: tokens of each sequence before its padding; None where there is none."""

    def count_with_prefix(self, prefix: Prefix) -> int:
        """Sequences that begin with the prefix; 0 where there is none."""
        return sum(begins(row, prefix) for row in self.tokens) if prefix else 0

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.tokens.size if self.lengths is None else self.lengths.sum())

    def tensors(self) -> dict[str, npt.NDArray[np.int32]]:
        """The tensors of tokens.safetensors: `tokens`, and with padding `lengths`."""
        return {"tokens": self.tokens} if self.lengths is None else {
            "tokens": self.tokens, "lengths": self.lengths
        }  # fmt: skip


def pack(
    rows: Sequence[npt.ArrayLike], seq_len: int, max_sequences: int | Literal["all"], prefix: Prefix = ()
) -> Packed:
    """Join rows end to end and cut them into sequences of `seq_len` tokens, each with `prefix` in front.

    A sequence that already begins with the prefix gets no second one. DataError for fewer complete sequences
    than required, or none.
    """
    stream = (
        np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.empty(0, np.int32)
    )
    starts = _starts(stream, seq_len, prefix)
    num_whole, num_required = len(starts) - 1, 1 if max_sequences == "all" else max_sequences
    if num_whole < num_required:
        raise DataError(
            f"{len(stream)} tokens make {num_whole} whole sequences of {seq_len}, not {num_required}; add "
            "data, or lower max_sequences or seq_len"
        )
    num_kept = num_whole if max_sequences == "all" else max_sequences
    tokens = np.empty((num_kept, seq_len), np.int32)
    for target, start, end in zip(tokens, starts, starts[1:], strict=False):
        target[: len(prefix)] = prefix
        # Right-aligned: it overwrites the prefix just written where the stream brings its own.
        target[seq_len - (end - start) :] = stream[start:end]
    return Packed(
        tokens=tokens,
        dropped_tail_tokens=len(stream) - starts[-1],
        left_out_sequences=num_whole - num_kept,
        row_tokens=starts[num_kept],
    )


def _starts(stream: Ids, seq_len: int, prefix: Prefix) -> "array[int]":
    """Positions in a stream of tokens at which complete sequences start, and the end of the last one."""
    starts, room = array("Q", [0]), _room(seq_len, prefix)
    # Where the row's own text has the prefix in place, the sequence needs no room for another.
    while (end := starts[-1] + (seq_len if begins(stream[starts[-1] :], prefix) else room)) <= len(stream):
        starts.append(end)
    return starts


def pad(
    rows: Sequence[Ids],
    seq_len: int,
    max_sequences: int | Literal["all"],
    pad_id: int,
    prefix: Prefix = (),
) -> Packed:
    """Make each row a sequence that begins with `prefix`, padded on the right with `pad_id`.

    Rows must be `fitted`. DataError for fewer rows than required, or none.
    """
    num_required = 1 if max_sequences == "all" else max_sequences
    if len(rows) < num_required:
        raise DataError(
            f"{len(rows)} rows make as many sequences, not {num_required}; add data or lower max_sequences"
        )
    kept_rows = rows if max_sequences == "all" else rows[:max_sequences]
    prefixed_rows = [
        row if begins(row, prefix) else np.concatenate([np.array(prefix, np.int32), row]) for row in kept_rows
    ]
    tokens = np.full((len(prefixed_rows), seq_len), pad_id, np.int32)
    for target, row in zip(tokens, prefixed_rows, strict=True):
        target[: len(row)] = row
    return Packed(
        tokens=tokens,
        dropped_tail_tokens=0,
        left_out_sequences=len(rows) - len(kept_rows),
        row_tokens=sum(len(row) for row in kept_rows),
        lengths=np.array([len(row) for row in prefixed_rows], np.int32),
    )


def begins(row: Ids, prefix: Prefix) -> bool:
    """Whether a row starts with the prefix."""
    return tuple(row[: len(prefix)].tolist()) == prefix


def fitted(row: Ids, seq_len: int, side: Side, prefix: Prefix) -> Ids:
    """The row cut on `side` so that with the prefix, present or not, it is at most `seq_len` tokens."""
    # With its own prefix the row may fill the sequence; otherwise it must leave room for one.
    shortened = cut(row, seq_len, side)
    return shortened if begins(shortened, prefix) else cut(row, _room(seq_len, prefix), side)


def _room(seq_len: int, prefix: Prefix) -> int:
    """Number of tokens of a sequence after the prefix; DataError where there is none."""
    if seq_len <= len(prefix):
        raise DataError(
            f"seq_len: {seq_len} leaves no room for text after the {len(prefix)} tokens that the tokenizer "
            "puts in front; raise it"
        )
    return seq_len - len(prefix)


def cut(row: Ids, length: int, side: Side) -> Ids:
    """The row cut to `length` tokens on `side`."""
    # Not `row[-length:]`, which for a length of 0 would be the whole row.
    return row[:length] if side == "right" else row[max(0, len(row) - length) :]


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """Number of rows per power-of-two range of length, e.g. {"17-32": 5}."""
    bins: dict[int, int] = {}
    for length in lengths:
        top = 1 << max(0, length - 1).bit_length()
        bins[top] = bins.get(top, 0) + 1
    return {f"{top // 2 + 1 if top > 1 else 0}-{top}": bins[top] for top in sorted(bins)}
