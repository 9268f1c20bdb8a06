"""Long texts to tokens piece by piece: the library takes some 300 bytes for each that it encodes at once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

PIECE = 1 << 14
"""Characters encoded at once."""

OVERLAP = 1 << 11
"""Characters that two pieces share: within them both must come to the same tokens at the same places."""

AGREEING = 32
"""Tokens on each side of a join that both pieces must have alike."""


def encode(tokenizer: Any, text: str, *, special: bool) -> Ids:
    """The tokens of a text, the same as the tokenizer gives for all of it; `special` adds BOS and its like.

    Where two pieces do not agree on what they share, as in a long word, all of the text is encoded at once.
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
    """The pieces' own tokens, end to end; none where two pieces cannot be joined."""
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
    """Yields where each piece starts, and the piece with what it shares with the next."""
    for start in range(0, len(text) - OVERLAP, PIECE):
        yield start, text[start : start + PIECE + OVERLAP]


def _piece(tokenizer: Any, piece: str, start: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    """A piece's tokens, and the character of the text that each one starts at."""
    encoding = tokenizer(
        piece, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    places = np.array([first for first, _ in encoding["offset_mapping"]], dtype=np.int64)
    return np.asarray(encoding["input_ids"], dtype=np.int32), places + start


def _find_join(
    left: tuple[Ids, npt.NDArray[np.int64]], right: tuple[Ids, npt.NDArray[np.int64]], place: int
) -> tuple[int, int] | None:
    """Where to leave the left piece and enter the right one: at the first token from `place` on, in both."""
    cuts = [int(np.searchsorted(starts, place)) for _, starts in (left, right)]
    around = [
        (ids[index - AGREEING : index + AGREEING], starts[index - AGREEING : index + AGREEING])
        for (ids, starts), index in zip((left, right), cuts, strict=True)
    ]
    alike = all(np.array_equal(*pair) for pair in zip(*around, strict=True))
    enough = min(cuts) >= AGREEING and len(around[0][0]) == 2 * AGREEING
    return (cuts[0], cuts[1]) if alike and enough else None
