"""The tree of proposals that a Medusa engine is loaded with; pure.

A node is a path: of each head in turn, which of its most likely tokens to take.
"""

import re

MEASURED = (
    "0 00 1 01 2 000 10 02 3 03 4 04 20 05 001 5 06 6 07 010 11 7 08 002 30 09 8 9 100 020 12 003 40 21 004 "
    "005 0000 011 006 030 50 13 007 008 009 60 040 14 70 012 200 31 22 80 050 15 101 021 90 060 0001 16 070"
)
"""Nodes by what each adds to the accepted length, as measured on Vicuna 7B: `mc_sim_7b_63` of
FasterDecoding/Medusa (medusa_choices.py), the default of TensorRT-LLM's examples and Triton backend."""

Tree = tuple[tuple[int, ...], ...]


def choices(num_heads: int, max_draft_len: int) -> Tree:
    """The first nodes that so many heads reach and an engine for so many draft tokens has room for.

    A node comes after the one that it continues, so that any beginning is a tree.
    """
    paths = (tuple(map(int, node)) for node in MEASURED.split())
    return tuple([path for path in paths if len(path) <= num_heads][:max_draft_len])


def misfit(text: str, num_heads: int, max_draft_len: int) -> str:
    """Why an engine has no room for a tree in Triton's spelling; empty where it has."""
    paths = re.findall(r"{([^}]*)}", text)
    levels = max((len(path.split(",")) for path in paths), default=0)
    if len(paths) <= max_draft_len and levels <= num_heads:
        return ""
    return (
        f"draft_choices has {len(paths)} nodes in {levels} levels; the engine has room for {max_draft_len} "
        f"nodes, and {num_heads} heads: give a smaller tree, or leave it out"
    )


def spelt(tree: Tree) -> str:
    """The tree as Triton's backend reads it: `{0}, {0, 0}, {1}`."""
    return ", ".join("{" + ", ".join(map(str, path)) + "}" for path in tree)
