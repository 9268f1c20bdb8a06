"""The audit finds what a wrong plan would lose, repeat or mistake."""

from typing import Any

import pytest

from pipeline.checkpoint.conversion_audit import Use, check, coverage_gaps, report, uses
from pipeline.checkpoint.tensor_parts import Fill, Largest, LocalTensor, Slice
from pipeline.errors import SourceError


def use(ranges, *, rank: int = 0, reason: str = "", shape=(4, 2)) -> Use:
    return Use(rank, "local", Slice("w", "F32", shape, ranges, reason))


def local(name: str, *parts, equal=()) -> LocalTensor:
    return LocalTensor(name, "F32", (4, 2), parts, equal)


def test_disjoint_boxes_that_add_up_are_complete():
    assert coverage_gaps((4, 2), [use(((0, 2), (0, 2))), use(((2, 4), (0, 2)), rank=1)]) == []


def test_a_scalar_used_once_is_complete():
    assert coverage_gaps((), [use((), shape=())]) == []


def test_lost_elements_are_counted():
    assert coverage_gaps((4, 2), [use(((0, 3), (0, 2)))]) == ["6 of 8 elements used"]


def test_overlapping_boxes_are_found():
    gaps = coverage_gaps((4, 2), [use(((0, 3), (0, 2))), use(((2, 4), (0, 1)))])
    assert gaps == ["((2, 4), (0, 1)) and ((0, 3), (0, 2)) overlap"]


def test_repetition_needs_a_reason():
    whole = ((0, 4), (0, 2))
    assert coverage_gaps((4, 2), [use(whole), use(whole, rank=1)]) == [
        "[(0, 4), (0, 2)] used 2 times without a reason"
    ]
    assert coverage_gaps((4, 2), [use(whole), use(whole, rank=1, reason="tied")]) == []


PLAN = [
    [local("a", Slice("w", "F32", (4, 2), ((0, 4), (0, 2))))],
    [
        local(
            "b",
            Slice("s", "F32", (), (), "whole"),
            equal=(Slice("t", "F32", (), (), "whole"),),
        ),
        local("c", Fill(0, (4, 2), "padding")),
    ],
]
HELD = {"w": ("F32", (4, 2)), "s": ("F32", ()), "t": ("F32", ())}


def test_a_checkpoint_that_fits_passes():
    check(uses(PLAN), HELD | {"inv_freq": ("F32", (8,))}, {"inv_freq"})


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"w": HELD["w"], "s": HELD["s"]}, "1 tensors\n  t: missing"),
        (HELD | {"w": ("BF16", (4, 2))}, r"w: BF16 \[4, 2\], expected F32 \[4, 2\]"),
        (HELD | {"w": ("F32", (2, 4))}, r"w: F32 \[2, 4\], expected F32 \[4, 2\]"),
        (HELD | {"k_scale": ("F32", ())}, "k_scale: not part of the layout, it would be lost"),
        ({}, "3 tensors"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(held: dict[str, Any], said: str):
    with pytest.raises(SourceError, match=said):
        check(uses(PLAN), held, ())


def test_long_lists_of_problems_are_cut():
    with pytest.raises(SourceError, match=r"30 tensors\n(.*\n)*  \.\.\. and 10 more$"):
        check({}, {f"x{i}": ("F32", ()) for i in range(30)}, ())


def test_report_says_where_everything_went():
    told = report(PLAN, uses(PLAN), {"inv_freq": "computed"})
    assert told == {
        "elements": {"source": 10, "written_again": 0},
        "sources": {
            "s": {
                "dtype": "F32", "shape": [], "to": [{"rank": 1, "tensor": "b", "slice": []}],
                "again_because": ["whole"],
            },
            "t": {
                "dtype": "F32", "shape": [],
                "to": [{"rank": 1, "tensor": "b", "slice": [], "equal_to": "s"}],
                "again_because": ["whole"],
            },
            "w": {
                "dtype": "F32", "shape": [4, 2],
                "to": [{"rank": 0, "tensor": "a", "slice": [[0, 4], [0, 2]]}],
            },
        },
        "made": [{"rank": 1, "tensor": "c", "value": 0, "shape": [4, 2], "reason": "padding"}],
        "computed": [],
        "left": {"inv_freq": "computed"},
    }  # fmt: skip


def test_a_computed_value_accounts_for_all_its_sources():
    k, v = (Slice(name, "F32", (), (), "whole") for name in ("k", "v"))
    ranks = [[LocalTensor("kv", "F32", (1,), (Largest((k, v), 1.0),))]] * 2
    check(uses(ranks), {"k": ("F32", ()), "v": ("F32", ())}, ())
    told = report(ranks, uses(ranks), {})
    assert told["computed"] == [
        {"rank": rank, "tensor": "kv", "largest_of": ["k", "v"], "at_least": 1.0} for rank in range(2)
    ]
    assert [use["tensor"] for use in told["sources"]["v"]["to"]] == ["kv", "kv"]
    with pytest.raises(SourceError, match="v: missing"):
        check(uses(ranks), {"k": ("F32", ())}, ())
