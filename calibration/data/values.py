"""Checks single values of rows: text that can be tokenized, JSON; standard library only."""

import json
import re
from typing import Any

NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""Matches a NUL as `json.dumps` writes it."""

SHOWN_CHARS = 24
"""Characters before a wrong one that a message quotes."""


def text(label: str, value: Any) -> str:
    """The value, if it is non-empty text that can be tokenized; else a ValueError."""
    value_ = string(label, value)
    if not value_.strip():
        raise ValueError(f"{label} is empty; give text or drop the row")
    return value_


def string(label: str, value: Any) -> str:
    """The value, if it is text that can be tokenized, possibly empty; else a ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{label} is a JSON {json_type(value)}; it must be text")
    if "\0" in value:
        raise ValueError(f"{label} has a NUL at character {value.index(chr(0)) + 1}; it must be text")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(
            f"{label} has half a surrogate pair at character {exc.start + 1}; it must be valid Unicode"
        ) from None
    return value


def printable(label: str, value: Any) -> None:
    """Raise ValueError unless every string of a JSON value, keys included, can be tokenized."""
    try:
        written = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{label} cannot be written as JSON ({exc}); give text, numbers and lists") from None
    except RecursionError:
        raise ValueError(f"{label} is nested too deeply; give a flatter value") from None
    try:
        written.encode()
    except UnicodeEncodeError as exc:
        context = written[max(0, exc.start - SHOWN_CHARS) : exc.start]
        raise ValueError(
            f"{label} has half a surrogate pair after {context!r}; it must be valid Unicode"
        ) from None
    if nul := NUL.search(written):
        context = written[max(0, nul.start() - SHOWN_CHARS) : nul.start()]
        raise ValueError(f"{label} has a NUL after {context!r}; it must be text")


def parsed(label: str, value: Any, expected: str) -> Any:
    """A value that may be JSON in a string; raises ValueError for other text, which says what is wanted."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{label} is text that is not valid JSON ({exc}); give {expected}") from None


def json_type(value: Any) -> str:
    """JSON's name of a parsed value's type."""
    if value is None:
        return "null"
    names = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "number")
