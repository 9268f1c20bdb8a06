"""What a published step asked for, against what a step of today asks for; pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from artifacts import digest
from pipeline.child.kinds import PUBLISHED, kind_of, of_0_1
from pipeline.rebuild import file_differences
from pipeline.step.step import Step

Asked = dict[str, Any]


def comparable(then: Mapping[str, Any], now: Step) -> tuple[Asked, Asked]:
    """Kind, revision and params of a manifest's step and of a step of today; inputs have steps of their own.

    Enginery 0.1 did not name the same tools for every kind: of its steps, those are compared that both name.
    """
    was, is_ = _comparable_fields(then), _comparable_fields(now.as_dict())
    if of_0_1(then):
        # the other tools would be differences that nobody made
        both = was["params"].get("tools", {}).keys() & is_["params"].get("tools", {}).keys()
        was, is_ = (_with_tools(step, both) for step in (was, is_))
    return was, is_


def otherwise(then: Mapping[str, Any], now: Step) -> Iterator[str]:
    """Yields the parameters in which two steps differ, dotted; inputs are steps of their own."""
    for place, was, is_ in file_differences.values(*comparable(then, now)):
        yield f"{place} was {was}, is {is_}"


def is_same(was: str, now: Step) -> bool:
    """Whether a published key is that of a step without inputs, or the one that enginery 0.1 gave it."""
    return was in (now.key, *_keys_of_0_1(now))


def _keys_of_0_1(step: Step) -> Iterator[str]:
    for builder, kind in PUBLISHED.items():
        if kind == step.maker:
            # 1: the revision in 0.1 of every kind without inputs
            yield digest.of_json({**step.as_dict(), "kind": step.kind, "builder": builder, "revision": 1})


def _comparable_fields(step: Mapping[str, Any]) -> Asked:
    return {"kind": kind_of(step), "revision": step.get("revision"), "params": dict(step.get("params", {}))}


def _with_tools(step: Asked, names: set[str]) -> Asked:
    params = {name: value for name, value in step["params"].items() if name != "tools"}
    return {**step, "params": params | {"tools": {name: step["params"]["tools"][name] for name in names}}}
