"""Types of config.json's fields in transformers' classes, which are strict: they refuse any other.

The table lies beside this file; `python -m tests.pipeline.models.config_types` writes it, from the pinned
transformers.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.models.model_json import shortened

WORDS = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number with a point or an exponent",
    "str": "a string",
    "list of int": "a list of whole numbers",
    "list of str": "a list of strings",
    "object": "an object",
    "object of int": "an object of whole numbers",
    "object of str": "an object of strings",
}
"""Type in the table -> how messages call it."""

AT_MOST = "float at most "
"""Begins the type of a number with a bound."""

PLAIN = {"null": type(None), "bool": bool, "int": int, "float": float, "str": str}

Type = str | list[str]
"""A name of WORDS, or the strings that are allowed."""


def mistyped(model_type: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Returns each field whose value the class of `model_type` refuses for its type -> what is wrong."""
    types = table()[model_type]
    return {
        name: f"{name} is {shortened(value)}; it must be {_describe_types(types[name])}"
        for name, value in document.items()
        if name in types and not any(_matches(value, each) for each in types[name])
    }


@cache
def table() -> dict[str, dict[str, list[Type]]]:
    """Returns model type -> field -> the types that it may have."""
    tables: dict[str, dict[str, list[Type]]] = json.loads((files(__package__) / "types.json").read_text())
    return tables


def _matches(value: Any, expected: Type) -> bool:
    if isinstance(expected, list):
        return isinstance(value, str) and value in expected
    if expected in PLAIN:
        # exact: a whole number is no float to these classes, and true no whole number
        return type(value) is PLAIN[expected]
    if expected.startswith(AT_MOST):
        # `not >` lets a NaN through: a bound is all that this type states
        return type(value) is float and not value > float(expected.removeprefix(AT_MOST))
    outer, _, inner = expected.partition(" of ")
    if outer == "list":
        return isinstance(value, list) and all(_matches(each, inner) for each in value)
    return isinstance(value, dict) and (not inner or all(_matches(each, inner) for each in value.values()))


def _describe_types(types: list[Type]) -> str:
    return " or ".join(map(_describe_type, types))


def _describe_type(expected: Type) -> str:
    if isinstance(expected, list):
        return f"one of {', '.join(map(shortened, expected))}"
    return WORDS.get(expected) or f"{WORDS['float']}, at most {expected.removeprefix(AT_MOST)}"
