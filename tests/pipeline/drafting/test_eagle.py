"""EAGLE: the tree of proposals, and which net a checkpoint holds."""

from typing import Any

import pytest

from pipeline.drafting.eagle import DEPTH, depth, generation, tree, widest


@pytest.mark.parametrize("nodes", [1, 2, 4, 10, 63, 256])
def test_a_tree_has_as_many_paths_as_asked_each_after_its_parent(nodes: int):
    paths = tree(nodes)
    assert len(set(paths)) == len(paths) == min(nodes, 63)
    assert depth(paths) <= DEPTH
    assert widest(paths) <= 10
    for number, path in enumerate(paths):
        assert len(path) == 1 or path[:-1] in paths[:number]


def test_a_smaller_tree_is_the_beginning_of_a_larger_one():
    assert tree(63)[:10] == tree(10)


def test_the_widest_level_counts_nodes_with_children_and_the_root():
    assert widest(((0,),)) == 1
    assert widest(((0,), (1,), (2,), (0, 0), (1, 0), (0, 0, 0))) == 2


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"fc.weight": (8, 16), "layers.0.mlp.up_proj.weight": (9, 8)}, 1),
        ({"fc.weight": (8, 24), "midlayer.mlp.up_proj.weight": (9, 8)}, 3),
        ({"fc.weight": (8, 24), "layers.0.mlp.up_proj.weight": (9, 8)}, 3),
        ({"fc.weight": (8, 16), "midlayer.mlp.up_proj.weight": (9, 8)}, 3),
        ({"fc.weight": (8, 8)}, 0),
        ({"model.layers.0.mlp.up_proj.weight": (9, 8)}, 0),
    ],
)
def test_the_tensors_tell_the_generation_of_a_net(tensors: dict[str, Any], found: int):
    assert generation({name: ("BF16", size) for name, size in tensors.items()}) == found
