from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.packing import begins, cut, fitted, histogram, pack, pad
from calibration.errors import DataError
from tests.present import present


def test_packing_joins_rows_and_reports_what_did_not_fit():
    packed = pack([[1, 2, 3], [4], [5, 6, 7, 8]], seq_len=3, max_sequences="all")
    assert packed.tokens.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert packed.tokens.dtype == np.int32
    assert (packed.dropped_tail_tokens, packed.left_out_sequences) == (2, 0)


def test_sequences_beyond_the_limit_are_counted():
    packed = pack([list(range(10))], seq_len=2, max_sequences=3)
    assert packed.tokens.shape == (3, 2)
    assert (packed.dropped_tail_tokens, packed.left_out_sequences) == (0, 2)


@pytest.mark.parametrize(
    ("rows", "limit", "complaint"),
    [
        ([[1, 2, 3]], "all", "3 tokens make 0 whole sequences of 4, not 1"),
        ([], "all", "0 tokens make 0 whole sequences of 4"),
        ([list(range(9))], 3, "9 tokens make 2 whole sequences of 4, not 3"),
    ],
)
def test_too_few_tokens_are_an_error_and_never_a_smaller_set(
    rows: list[list[int]], limit: int | Literal["all"], complaint: str
):
    with pytest.raises(DataError, match=complaint):
        pack(rows, seq_len=4, max_sequences=limit)


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=20), st.integers(1, 8))
def test_every_token_is_packed_once_in_order_or_counted_as_tail(rows, seq_len):
    flat = [token for row in rows for token in row]
    if len(flat) < seq_len:
        return
    packed = pack(rows, seq_len, "all")
    assert packed.tokens.size + packed.dropped_tail_tokens == len(flat)
    assert packed.tokens.flatten().tolist() == flat[: packed.tokens.size]


def row(count):
    return np.arange(count, dtype=np.int32)


def test_padding_keeps_each_row_by_itself_and_says_how_long_it_is():
    padded = pad([row(2), row(3), row(1)], 3, 2, pad_id=9)
    assert padded.tensors()["tokens"].tolist() == [[0, 1, 9], [0, 1, 2]]
    assert padded.tensors()["lengths"].tolist() == [2, 3]
    assert {array.dtype for array in padded.tensors().values()} == {np.dtype(np.int32)}
    assert (padded.num_tokens, padded.left_out_sequences, padded.dropped_tail_tokens) == (5, 1, 0)
    assert list(pack([row(4)], 2, "all").tensors()) == ["tokens"]


def test_too_few_rows_to_pad_are_an_error():
    with pytest.raises(DataError, match="2 rows make as many sequences, not 3"):
        pad([row(1), row(2)], 4, 3, pad_id=0)
    with pytest.raises(DataError, match="0 rows make as many sequences, not 1"):
        pad([], 4, "all", pad_id=0)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=20))
def test_padding_conserves_tokens(lengths):
    rows = [np.random.default_rng(i).integers(0, 99, n).astype(np.int32) for i, n in enumerate(lengths)]
    padded = pad(rows, 8, "all", pad_id=-1)
    kept = [seq[:length] for seq, length in zip(padded.tokens, present(padded.lengths), strict=True)]
    assert all(np.array_equal(*pair) for pair in zip(kept, rows, strict=True))
    assert (padded.tokens == -1).sum() + padded.num_tokens == padded.tokens.size


@given(st.integers(0, 20), st.integers(1, 20))
def test_a_row_is_cut_on_the_side_asked_for(count, length):
    right, left = cut(row(count), length, "right"), cut(row(count), length, "left")
    assert len(right) == len(left) == min(count, length)
    assert right.tolist() == list(range(count))[: len(right)]
    assert left.tolist() == list(range(count))[count - len(left) :]


def test_lengths_are_counted_in_powers_of_two():
    assert histogram([0, 1, 2, 3, 4, 5, 8, 9, 16, 17]) == {
        "0-1": 2,
        "2-2": 1,
        "3-4": 2,
        "5-8": 2,
        "9-16": 2,
        "17-32": 1,
    }


BOS = 1000


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=20), st.integers(2, 8), st.booleans())
def test_every_sequence_begins_with_bos_once_and_no_token_is_lost(rows, seq_len, own):
    texts = [[BOS, *row] if own else row for row in rows]
    stream = [token for row in texts for token in row]
    if len(stream) < seq_len:
        return
    packed = pack(texts, seq_len, "all", (BOS,))
    assert packed.begun((BOS,)) == len(packed.tokens)
    at = 0
    for window in packed.tokens.tolist():
        text = window if stream[at] == BOS else window[1:]
        assert text == stream[at : at + len(text)]
        at += len(text)
    assert at == packed.row_tokens == len(stream) - packed.dropped_tail_tokens
    assert packed.dropped_tail_tokens < seq_len


def test_rows_of_their_own_begin_with_bos_whatever_side_they_are_cut_on():
    rows = [np.array([BOS, 1, 2, 3, 4, 5], np.int32), np.array([1, 2, 3, 4, 5], np.int32), row(2)]
    right, left = ([fitted(each, 4, side, (BOS,)) for each in rows] for side in ("right", "left"))
    assert pad(right, 4, "all", 9, (BOS,)).tokens.tolist() == [[BOS, 1, 2, 3], [BOS, 1, 2, 3], [BOS, 0, 1, 9]]
    padded = pad(left, 4, "all", 9, (BOS,))
    assert padded.tokens.tolist() == [[BOS, 3, 4, 5], [BOS, 3, 4, 5], [BOS, 0, 1, 9]]
    assert (present(padded.lengths).tolist(), padded.row_tokens) == ([4, 4, 3], 8)
    assert not any(begins(each, (BOS,)) for each in left)


def test_a_sequence_without_room_for_text_is_refused():
    for make in (lambda: pack([[1, 2, 3]], 1, "all", (BOS,)), lambda: fitted(row(3), 1, "left", (BOS,))):
        with pytest.raises(DataError, match="seq_len: 1 leaves no room for text"):
            make()
