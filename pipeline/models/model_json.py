"""JSON files of a model directory, which come from strangers: read whole, within limits, or refused.

A name that is no regular file is never opened (a FIFO would wait for ever, a device can act on it). Bytes are
counted before they are read, values and nesting before they are parsed.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any

from calibration.links import LeadsOut, open_inside
from pipeline.errors import SourceError
from recipes.regular import kind


@dataclass(frozen=True, slots=True)
class Limits:
    """How much JSON is read."""

    nbytes: int
    values: int
    """Values and names together, counted as commas, colons, opening brackets and backslashes: never fewer."""
    depth: int = 64
    """Brackets around the innermost value."""


MODEL = Limits(32 << 20, 1_200_000)
"""config.json, index and headers: a header of 100,000 tensors fits. Takes 0.3 GB of memory at the worst."""

TOKENIZER = Limits(128 << 20, 16_000_000)
"""tokenizer.json and vocab.json: those with a quarter of a million tokens and twice as many merges fit."""

DIGITS = 400
"""Characters of a number, at most: the largest float written out has 309."""

SHOWN = 100
"""Characters of a value that a message shows."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""Begins what stands in a Git checkout in the place of a large file that was not fetched."""

STRINGS = re.compile(rb'"[^"]*+"')
NOT_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_json(path: Path, limits: Limits = MODEL) -> dict[str, Any]:
    """Reads a JSON object from a regular file; anything else, or beyond the limits, is a SourceError.

    Values are as `json` gives them, NaN and infinities included: whoever takes a number checks it.
    """
    with open_regular(path) as file:
        data = file.read(limits.nbytes + 1)
    return parse_json(data, str(path), limits)


@contextmanager
def open_regular(path: Path, root: Path | None = None) -> Iterator[BufferedReader]:
    """Opens a regular file of the directory `root`, by default its own, for reading.

    Anything else, and a link that leads out of the directory, is a SourceError.
    """
    try:
        # before opening: opening some devices already does something
        _require_regular(path, path.stat().st_mode)
        # Between the two looks it may have become a FIFO, which must not make us wait, or another link.
        home = root or path.parent
        descriptor = open_inside(home, str(path.relative_to(home)))
    except LeadsOut as exc:
        raise SourceError(exc.strerror) from None
    except FileNotFoundError:
        if path.is_symlink():
            raise SourceError(
                f"{path}: is a link to {path.readlink()}, which does not exist; get that file, or put it here"
            ) from None
        raise SourceError(f"{path}: no such file; a checkpoint directory must have it") from None
    except (OSError, ValueError) as exc:  # a name with a zero byte is a ValueError
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise SourceError(f"{path}: cannot be read ({why}); make it readable for this user") from exc
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(path, os.fstat(descriptor).st_mode)
        if file.peek(len(POINTER)).startswith(POINTER):
            raise SourceError(f"{path}: is a Git LFS pointer and not the file; run `git lfs pull` there")
        yield file


def parse_json(data: bytes, where: str, limits: Limits = MODEL) -> dict[str, Any]:
    """Parses a JSON object in UTF-8; what is not one, or beyond the limits, is a SourceError."""
    if len(data) > limits.nbytes:
        raise SourceError(f"{where}: more than {limits.nbytes} bytes of JSON; at most that many are read")
    # Every string has a mark before it; more quotes than that are no JSON, and would cost as much.
    values = max(sum(map(data.count, (b",", b":", b"[", b"{", b"\\"))), data.count(b'"') // 2)
    if values > limits.values:
        raise SourceError(f"{where}: {values} values and names; at most {limits.values} are read")
    # before the parser, which recurses and would run out of stack
    if (deepest := _count_depth(data)) > limits.depth:
        raise SourceError(f"{where}: nested {deepest} deep; at most {limits.depth} levels are read")
    try:
        # own number parsers: converting a text of millions of digits takes time out of proportion
        value = json.loads(
            data.decode(), object_pairs_hook=_require_unique, parse_int=_parse_int, parse_float=_parse_float
        )
    except ValueError as exc:
        raise SourceError(f"{where}: not valid JSON ({exc}); fetch the file again") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{where}: not a JSON object but {shortened(value)}; fetch the file again")
    return value


def shortened(value: Any) -> str:
    """Shows a JSON value of any size in one short line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 4 * SHOWN:  # digits beyond a limit cannot be printed
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
    if isinstance(value, str | bytes):
        text = repr(value[: SHOWN + 1])
    elif isinstance(value, dict | list):
        text = _show_container(value)
    else:
        text = repr(value)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}..."


def _show_container(value: dict[str, Any] | list[Any]) -> str:
    """Shows a small object or list, and counts a large one."""
    # one level only: what is inside of containers is counted, not shown
    small = len(value) <= 8 and not any(isinstance(item, dict | list) for item in _list_items(value))
    kind = "object" if isinstance(value, dict) else "list"
    if not small:
        return f"{'an' if kind == 'object' else 'a'} {kind} of {len(value)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{shortened(name)}: {shortened(item)}" for name, item in value.items()) + "}"
    return "[" + ", ".join(map(shortened, value)) + "]"


def _list_items(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path}: is {kind(mode)}; it must be a regular file, or a link to one")


def require_directory(path: Path) -> None:
    """Refuses a checkpoint that is something else than a directory; one that is absent is told elsewhere."""
    try:
        mode = path.stat().st_mode
    except OSError:  # told, with its reason, where it is read
        return
    if not stat.S_ISDIR(mode):
        raise SourceError(f"{path}: is {kind(mode)}; it must be a directory with config.json and weights")


def _count_depth(data: bytes) -> int:
    """Brackets around the innermost value.

    Escaped quotes go first, so that every quote left begins or ends a string; outside of strings the parser
    stops at a backslash. Two quotes side by side go too: what is inside of strings stays inside.
    """
    quoted = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, NOT_MARKS).replace(b'""', b"")
    brackets = STRINGS.sub(b"", quoted).translate(None, b'"')
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)


def _require_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        # JSON parsers disagree about which of two equal names counts; no file may depend on that.
        raise ValueError(f"the name {shortened(twice)} appears twice")
    return fields


def _parse_int(text: str) -> int:
    return int(_require_bounded(text))


def _parse_float(text: str) -> float:
    return float(_require_bounded(text))


def _require_bounded(text: str) -> str:
    if len(text) > DIGITS:
        raise ValueError(f"the number {text[:12]}... has {len(text)} characters, at most {DIGITS} are read")
    return text
