"""Shapes of the JSON values in the registry; pure.

Each function returns the problem of a value, None where there is none. Only fields that readers use have a
shape; other fields may come from another version of enginery and are accepted.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 16 << 20
"""Longest JSON text that is parsed: longer than any recipe, short enough for memory."""

Shape = Callable[[Any], str | None]


class Unreadable:
    """Stands in for the value of malformed JSON: the reason, and the text."""

    def __init__(self, why: str, text: str) -> None:
        self.why, self.text = why, text

    def __str__(self) -> str:
        return f"is not readable JSON: {self.why}"


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text; an Unreadable for malformed JSON and values that enginery never writes."""
    if not isinstance(text, str | bytes):
        return Unreadable(f"it is {kind_of(text)}, not text", repr(text))
    # Bad bytes become surrogates here, which `_require_text` then reports as a problem of the row.
    content = text if isinstance(text, str) else text.decode(errors="surrogateescape")
    try:
        if len(content) > LONGEST:
            raise ValueError(f"it has {len(content):,} characters; at most {LONGEST:,} are read")
        # Python reads `NaN`, `Infinity` and 1e999 without an error; enginery never writes them.
        value = json.loads(content, parse_constant=_refused, parse_float=_finite)
        # Only escapes and non-ASCII text can contain surrogates or NUL: most documents skip the check.
        if "\\u" in content or not content.isascii():
            _require_text(value)
    # RecursionError: a stored text may be nested deeper than the parser allows.
    except (ValueError, RecursionError, TypeError) as exc:
        return Unreadable(str(exc) or "it is nested too deep", content)
    return value


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range for a number")
    return value


# An even number of backslashes before the escape: an odd one makes the text a literal backslash.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _require_text(value: Any) -> None:
    whole = json.dumps(value, ensure_ascii=False)
    if NUL.search(whole):
        raise ValueError("it has NUL characters")
    whole.encode()  # half a surrogate pair is a UnicodeEncodeError, a ValueError


def text_problem(value: Any, longest: int) -> str | None:
    """The problem of a text with at most `longest` characters; None where there is none."""
    if not isinstance(value, str):
        return f"is {brief(value)}, not text"
    if len(value) > longest:
        return f"has {len(value):,} characters; at most {longest:,} are allowed"
    if "\0" in value:
        return "has NUL characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "has bytes that are not UTF-8"
    return None


def kind_of(value: Any) -> str:
    """The JSON kind of a value, in words."""
    kinds = {
        type(None): "nothing",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return kinds.get(type(value), type(value).__name__)


def brief(value: Any) -> str:
    """A value as short printable text; containers as their kind."""
    if value is None or isinstance(value, bytes | list | dict):
        return kind_of(value)
    text = repr(value)
    whole = text if len(text) <= 60 else f"{text[:60]}..."
    # Values come from the database: control characters must not reach the terminal.
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in whole)


def an_object(value: Any) -> str | None:
    """A JSON object."""
    return None if isinstance(value, dict) else f"is {kind_of(value)}, not an object"


def texts(value: Any) -> str | None:
    """A list of texts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return None
    return f"is {kind_of(value)}, not a list of texts" if not isinstance(value, list) else "holds no texts"


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, str) else f"is {kind_of(value)}, no text"


def _some_text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"is {kind_of(value)}, no text"


def _count(value: Any) -> str | None:
    # `bool` is a subclass of `int` and must not pass as a count.
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return None if value is None or whole else f"is {brief(value)}, not a whole number from 0"


def _number(value: Any) -> str | None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return None if value is None or real else f"is {brief(value)}, no number"


def _counts(value: Any) -> str | None:
    if not isinstance(value, list):
        return _nothing(value) or _count(value)
    return next(
        (f"holds one that {problem}" for item in value if (problem := _count(item) or _nothing(item))), None
    )


def _nothing(value: Any) -> str | None:
    return "is nothing" if value is None else None


def _plain(value: Any) -> str | None:
    if value is None or isinstance(value, str | int | float):
        return None
    return f"is {kind_of(value)}, neither text nor number"


def _each(shape: Shape) -> Shape:
    """The shape of an object whose values all have `shape`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return an_object(value)
        return next(
            (f"{brief(name)} {problem}" for name, item in value.items() if (problem := shape(item))), None
        )

    return check


def _list_of(shape: Shape) -> Shape:
    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"is {kind_of(value)}, not a list"
        return next(
            (f"{place} {problem}" for place, item in enumerate(value) if (problem := shape(item))), None
        )

    return check


def _with(fields: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """The shape of an object whose `fields` have these shapes; other fields are not checked."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return an_object(value)
        for name in required:
            if name not in value:
                return f"has no {name!r}"
        problems = (
            f"{name} {problem}"
            for name, shape in fields.items()
            if name in value and (problem := shape(value[name]))
        )
        return next(problems, None)

    return check


def _or_none(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def _format(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    return _with({"default": _some_text, "except": _each(_some_text)}, ("default", "except"))(value)


facts = _with(
    {
        **dict.fromkeys(("backend", "format", "dtype", "kv_cache", "target", "device", "cpu"), _text),
        **dict.fromkeys(("scored", "sequences_begin_with", "measured"), _text),
        **dict.fromkeys(("tp", "pp", "world_size", "max_batch_size", "max_seq_len", "sm"), _count),
        **dict.fromkeys(("weight_bytes_per_rank", "memory_bytes_per_rank"), _counts),
        "toolchain": _each(_plain),
        "gpus": _list_of(_with({"name": _some_text, "driver": _text, "sm": _count}, ("name",))),
    }
)
"""Requirements on the host, and what the engine was built for."""

OBJECT = _or_none(an_object)

recipe = _with(
    {
        "name": _some_text,
        "format": _format,
        "model": _with({"repo": _text, "path": _text, "revision": _text}),
        "tune": _or_none(_with({"space": an_object, "budget": an_object})),
        **dict.fromkeys(("engine", "calibration", "gate", "publish", "speculative"), OBJECT),
    }
)
"""The fields of a recipe that lists, searches and comparisons use; a build validates the whole recipe."""

KEY = re.compile("[0-9a-f]{64}")


def a_key(value: Any) -> str | None:
    """The key of an artifact, or another digest."""
    if isinstance(value, str) and KEY.fullmatch(value):
        return None
    return f"is {brief(value)}, not 64 hexadecimal digits"


lineage = _each(a_key)
"""Kind of step -> key."""

checks = _list_of(
    _with(
        {
            "metric": _some_text, "outcome": _text, "why": _text,
            **dict.fromkeys(("value", "low", "high", "limit"), _number),
        },
        ("metric",),
    )
)  # fmt: skip
"""The gate's comparisons."""

source = _with({**dict.fromkeys(("repo", "revision", "path", "file"), _text), "imported": OBJECT})
"""Where a model came from."""

_moved = _with(
    {
        "alias": _some_text, "was": _count, "now": lambda value: _nothing(value) or _count(value),
        "waived": _list_of(_with({"rule": _some_text, "reason": _some_text}, ("rule", "reason"))),
        "broken": _list_of(_with({"rule": _some_text, "why": _some_text}, ("rule", "why"))),
    },
    ("alias", "was", "now"),
)  # fmt: skip
_of_version = _with({"number": lambda value: _nothing(value) or _count(value)}, ("number",))

DETAILS: Mapping[str, Shape] = {
    "alias_moved": _moved,
    "rolled_back": _moved,
    "published": _of_version,
    "refused": _of_version,
    "collected": _of_version,
    "signed": _of_version,
    "waived": _of_version,
    "rebuild_needed": lambda value: _of_version(value) or _with({"reasons": texts}, ("reasons",))(value),
}
"""Kind of event -> shape of its detail; other kinds are only shown."""
