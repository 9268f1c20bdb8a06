"""Sizes of lookahead decoding."""

import pytest

from pipeline.drafting.lookahead import draft_tokens, sizes

pytestmark = pytest.mark.slow


def test_the_example_of_the_documentation_needs_83_tokens():
    assert draft_tokens(7, 7, 7) == 83
    assert sizes(83) == (7, 7, 7)
    assert sizes(82) == (6, 6, 6)


@pytest.mark.parametrize("room", range(1, 120))
def test_sizes_fit_and_propose_something(room: int):
    assert 0 < draft_tokens(*sizes(room)) <= room
    assert min(sizes(room)) >= 1
