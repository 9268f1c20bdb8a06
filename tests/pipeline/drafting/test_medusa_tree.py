"""The tree of proposals of a Medusa engine."""

import pytest

from pipeline.drafting.medusa_tree import choices, spelt


@pytest.mark.parametrize(("heads", "room"), [(1, 4), (2, 6), (3, 63), (4, 63), (5, 200)])
def test_a_tree_has_a_head_for_each_level_and_room_for_each_node(heads: int, room: int):
    tree = choices(heads, room)
    assert len(set(tree)) == len(tree) <= room
    assert max(map(len, tree)) <= heads
    assert all(path[:-1] in tree[:number] for number, path in enumerate(tree) if len(path) > 1)


def test_four_heads_with_room_get_all_nodes_and_one_head_its_most_likely_tokens():
    assert len(choices(4, 63)) == len(choices(5, 100)) == 63
    assert choices(1, 4) == ((0,), (1,), (2,), (3,))


def test_a_tree_is_spelt_as_tritons_backend_reads_it():
    assert spelt(choices(2, 4)) == "{0}, {0, 0}, {1}, {0, 1}"
