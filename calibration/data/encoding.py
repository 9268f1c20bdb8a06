"""Encodes long texts piece by piece, since the tokenizer needs about 300 bytes per character at once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

PIECE = 1 << 14
"""Characters encoded at once."""

OVERLAP = 1 << 11
"""Characters that two pieces share, in which both must have the same tokens at the same places."""

AGREEING = 32
"""Tokens on each side of a join that must be equal in both pieces."""


def encode(tokenizer: Any, text: str, *, special: bool) -> Ids:
    """The tokens of a text, equal to encoding it at once; `special` adds BOS and other special tokens.

    If two pieces differ in their overlap, e.g. in a very long word, the whole text is encoded at once.
    """
    if len(text) <= PIECE + OVERLAP or not tokenizer.is_fast:
        return _encode_whole(tokenizer, text, special=special)
    parts = list(_encode_pieces(tokenizer, text))
    if not parts:
        return _encode_whole(tokenizer, text, special=special)
    if special:
        with_special, without_special = (
            _encode_whole(tokenizer, "a", special=special_) for special_ in (True, False)
        )
        index = next(
            (
                index
                for index in range(len(with_special))
                if np.array_equal(with_special[index : index + len(without_special)], without_special)
            ),
            None,
        )
        # The tokenizer's special tokens depend on the text around them.
        if index is None:
            return _encode_whole(tokenizer, text, special=True)
        parts = [with_special[:index], *parts, with_special[index + len(without_special) :]]
    return np.concatenate(parts)


def _encode_whole(tokenizer: Any, text: str, *, special: bool) -> Ids:
    encoding = tokenizer(
        text, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False
    )
    return np.asarray(encoding["input_ids"], dtype=np.int32)


def _encode_pieces(tokenizer: Any, text: str) -> list[Ids]:
    """The tokens of the pieces, to be concatenated; empty where two pieces cannot be joined."""
    parts, (ids, starts), begin = list[Ids](), (np.empty(0, np.int32), np.empty(0, np.int64)), 0
    for number, (start, piece) in enumerate(_pieces(text)):
        piece_ids, places = _piece(tokenizer, piece, start)
        if number == 0:
            ids, starts = piece_ids, places
            continue
        join = _find_join((ids, starts), (piece_ids, places), start + OVERLAP // 2)
        if join is None:
            return []
        parts.append(ids[begin : join[0]])
        ids, starts, begin = piece_ids, places, join[1]
    return [*parts, ids[begin:]]


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Start and text of each piece, with the overlap into the next one."""
    # A rest within the overlap belongs to the last piece.
    for start in range(0, len(text) - OVERLAP, PIECE):
        yield start, text[start : start + PIECE + OVERLAP]


def _piece(tokenizer: Any, piece: str, start: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    """A piece's tokens, and the position in the text at which each one starts."""
    encoding = tokenizer(
        piece, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    places = np.array([first for first, _ in encoding["offset_mapping"]], dtype=np.int64)
    return np.asarray(encoding["input_ids"], dtype=np.int32), places + start


def _find_join(
    left: tuple[Ids, npt.NDArray[np.int64]], right: tuple[Ids, npt.NDArray[np.int64]], place: int
) -> tuple[int, int] | None:
    """Indices in both pieces of the first token from `place` on, if the tokens around it are equal."""
    cuts = [int(np.searchsorted(starts, place)) for _, starts in (left, right)]
    around = [
        (ids[index - AGREEING : index + AGREEING], starts[index - AGREEING : index + AGREEING])
        for (ids, starts), index in zip((left, right), cuts, strict=True)
    ]
    alike = all(np.array_equal(*pair) for pair in zip(*around, strict=True))
    enough = min(cuts) >= AGREEING and len(around[0][0]) == 2 * AGREEING
    # Far from both ends, a token depends only on its neighbourhood: where many agree, both pieces are as the
    # whole is.
    return (cuts[0], cuts[1]) if alike and enough else None
