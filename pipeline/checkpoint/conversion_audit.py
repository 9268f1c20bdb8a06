"""Proof that every element of a checkpoint is used exactly once, or more often for a stated reason; pure."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint.tensor_parts import Fill, Largest, LocalTensor, PlusOne, Range, Slice
from pipeline.errors import SourceError

Kind = tuple[str, tuple[int, ...]]
"""Dtype and shape of a tensor."""


@dataclass(frozen=True, slots=True)
class Use:
    """One box of a source tensor in one tensor of one rank."""

    rank: int
    tensor: str
    slice: Slice
    equal_to: str = ""
    """Source tensor that was written in its place, because both hold the same values."""


def uses(ranks: Sequence[Iterable[LocalTensor]]) -> dict[str, list[Use]]:
    """Lists, per source tensor, every place its elements go to."""
    uses_of: dict[str, list[Use]] = defaultdict(list)
    for rank, tensors in enumerate(ranks):
        for tensor in tensors:
            slices = [part for part in tensor.parts if isinstance(part, Slice)]
            for each in (*slices, *(part.source for part in _list_increased(tensor))):
                uses_of[each.source].append(Use(rank, tensor.name, each))
            for number, each in enumerate(tensor.equal):
                # `equal` holds the same number of tensors for each slice, in order: division finds the slice
                # in whose place this tensor would have been read.
                of = slices[number * len(slices) // len(tensor.equal)]
                uses_of[each.source].append(Use(rank, tensor.name, each, of.source))
            for computed in _list_computed(tensor):
                for each in computed.sources:
                    uses_of[each.source].append(Use(rank, tensor.name, each))
    return dict(uses_of)


def _list_computed(tensor: LocalTensor) -> list[Largest]:
    return [part for part in tensor.parts if isinstance(part, Largest)]


def _list_increased(tensor: LocalTensor) -> list[PlusOne]:
    return [part for part in tensor.parts if isinstance(part, PlusOne)]


def check(
    uses_of: Mapping[str, Sequence[Use]],
    source_kinds: Mapping[str, Kind],
    left_out: Collection[str],
    where: str = "checkpoint",
) -> None:
    """Checks a plan against the tensors of a checkpoint at `where`.

    A SourceError names those missing, odd or unused. Those of a recipe's model plan has compared already; the
    checkpoint may also be one that somebody else quantized.
    """
    problems = [f"{name}: missing" for name in uses_of if name not in source_kinds]
    for name, kind in source_kinds.items():
        if name in uses_of:
            problems += _find_mismatches(name, kind, uses_of[name])
        elif name not in left_out:
            problems.append(f"{name}: not part of the layout, it would be lost")
    if problems:
        # A wrong config.json disagrees with every layer; the first lines show the pattern.
        lines = [*problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        detail = "\n".join(f"  {problem}" for problem in lines)
        raise SourceError(f"{where} and config.json disagree: {len(problems)} tensors\n{detail}")


def _find_mismatches(name: str, kind: Kind, used: Sequence[Use]) -> list[str]:
    expected = (used[0].slice.dtype, used[0].slice.shape)
    if kind != expected:
        return [f"{name}: {kind[0]} {list(kind[1])}, expected {expected[0]} {list(expected[1])}"]
    return [f"{name}: {wrong}" for wrong in coverage_gaps(kind[1], used)]


def coverage_gaps(shape: tuple[int, ...], used: Sequence[Use]) -> list[str]:
    """Says what keeps a tensor's uses from covering every element once, or more often with a reason.

    Boxes must be equal or disjoint; disjoint boxes that add up to the whole tensor cover it exactly.
    """
    # Plans cut on a grid, so two boxes are equal or disjoint. With that, the volumes of the distinct boxes
    # add up to the tensor's exactly when every element is covered; no element needs to be visited.
    places: dict[tuple[Range, ...], list[Use]] = defaultdict(list)
    for use in used:
        places[use.slice.ranges].append(use)
    wrong = []
    boxes = list(places)
    wrong += [f"{a} and {b} overlap" for i, a in enumerate(boxes) for b in boxes[:i] if _boxes_overlap(a, b)]
    covered = sum(math.prod(stop - start for start, stop in box) for box in boxes)
    if covered != math.prod(shape):
        wrong.append(f"{covered} of {math.prod(shape)} elements used")
    for box, at in places.items():
        # One use needs no reason: it is the element's own place. Each further one must state why.
        if len([use for use in at if not use.slice.reason]) > 1:
            wrong.append(f"{list(box)} used {len(at)} times without a reason")
    return wrong


def _boxes_overlap(a: tuple[Range, ...], b: tuple[Range, ...]) -> bool:
    return all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True))


def report(
    ranks: Sequence[Iterable[LocalTensor]], uses_of: Mapping[str, Sequence[Use]], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Builds `audit.json`: per source tensor where it went, what was made or computed, and the sums."""
    elements = {name: math.prod(used[0].slice.shape) for name, used in uses_of.items()}
    copies = {
        name: sum(math.prod(use.slice.extent) for use in used) - elements[name]
        for name, used in uses_of.items()
    }
    return {
        "elements": {"source": sum(elements.values()), "written_again": sum(copies.values())},
        "sources": {name: _report_source(used) for name, used in sorted(uses_of.items())},
        "made": [
            {"rank": rank, "tensor": tensor.name, "value": part.value, "shape": list(part.extent)}
            | {"reason": part.reason}
            for rank, tensors in enumerate(ranks)
            for tensor in tensors
            for part in tensor.parts
            if isinstance(part, Fill)
        ],
        "computed": [
            {"rank": rank, "tensor": tensor.name, **step_text}
            for rank, tensors in enumerate(ranks)
            for tensor in tensors
            for step_text in _describe_computation(tensor)
        ],
        "left": dict(sorted(left_out.items())),
    }


def _describe_computation(tensor: LocalTensor) -> Iterator[dict[str, Any]]:
    """Yields how values of a tensor are computed."""
    for largest in _list_computed(tensor):
        yield {"largest_of": [each.source for each in largest.sources], "at_least": largest.floor}
    for increased in _list_increased(tensor):
        yield {"one_plus": increased.source.source}


def _report_source(used: Sequence[Use]) -> dict[str, Any]:
    reasons = sorted({use.slice.reason for use in used if use.slice.reason})
    return {
        "dtype": used[0].slice.dtype,
        "shape": list(used[0].slice.shape),
        "to": [
            {"rank": use.rank, "tensor": use.tensor, "slice": [list(span) for span in use.slice.ranges]}
            | ({"equal_to": use.equal_to} if use.equal_to else {})
            for use in used
        ],
        **({"again_because": reasons} if reasons else {}),
    }
