import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.blend import order, pick, shares

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)


@given(st.integers(0, 10**9), WEIGHTS)
def test_shares_sum_to_the_total_and_none_is_a_whole_one_off(total, weights):
    found = shares(total, weights)
    assert sum(found) == total
    for share, weight in zip(found, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1 + 1e-6


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1, 1], [4, 3, 3]),  # the remainder goes to the earlier of equals
        (10, [3, 1], [8, 2]),
        (7, [0.5, 0.25, 0.25], [3, 2, 2]),
        (100, [0.1, 0.2, 0.7], [10, 20, 70]),
        (1, [1, 1e6], [0, 1]),
    ],
)
def test_shares_follow_the_weights(total: int, weights, expected: list[int]):
    assert shares(total, weights) == expected


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 9))
def test_a_draw_is_the_first_of_the_order(count, samples, seed):
    assert pick(count, samples, str(seed)) == sorted(order(count, str(seed))[:samples])


@given(st.integers(0, 200), st.integers(0, 9))
def test_an_order_is_a_permutation_fixed_by_its_seed(count, seed):
    assert sorted(order(count, str(seed))) == list(range(count))
    assert order(count, str(seed)) == order(count, str(seed))


def test_orders_do_not_move_between_versions():
    # From sha256sum of "0:blend:0" ... "0:blend:7". A changed order changes
    # every calibration set under an unchanged key.
    assert order(8, "0:blend") == [7, 3, 2, 6, 0, 4, 1, 5]


def test_different_seeds_draw_different_rows_in_rising_order():
    draws = {tuple(pick(1000, 10, str(seed))) for seed in range(20)}
    assert len(draws) == 20
    assert all(list(draw) == sorted(set(draw)) for draw in draws)
    assert pick(4, "all", "0") == [0, 1, 2, 3]
