"""Reads and checks calibration text row by row; the standard library only, so that a plan can use it."""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calibration.errors import DataError

Kind = Literal["jsonl", "txt"]
Message = dict[str, str]
Content = str | list[Message]
"""What a row holds: text, or chat messages with a role and a content each."""

AUTO_COLUMNS = ("text", "messages")
MAX_PROBLEMS = 10
"""Problems listed before a file is given up: enough to see a pattern, few enough to read."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as the file has it."""

    line: int
    """Line of the file, from 1, that the row starts on."""
    content: Content


@dataclass(frozen=True, slots=True)
class Scan:
    """What a pass over a data file found; a broken file raises instead."""

    path: Path
    kind: Kind
    offsets: "array[int]"
    """Byte offset at which each row starts."""
    lines: "array[int]"
    """Line, from 1, on which each row starts."""
    bytes_read: int
    size_bytes: int

    @property
    def rows(self) -> int:
        """Number of rows seen."""
        return len(self.offsets)

    @property
    def complete(self) -> bool:
        """Whether the whole file was read; false where a byte budget ended the pass."""
        return self.bytes_read == self.size_bytes

    def summary(self) -> str:
        """One line for people, which says so when only part of the file was checked."""
        seen = f"{self.path.name}: {self.rows} rows"
        if self.complete:
            return seen
        return f"{seen} in the first {self.bytes_read} of {self.size_bytes} bytes; the rest is checked later"


def kind_of(path: Path) -> Kind:
    """Kind of data file by its suffix; raises DataError for another one."""
    kinds: dict[str, Kind] = {".jsonl": "jsonl", ".txt": "txt"}
    if path.suffix not in kinds:
        raise DataError(f"{path}: unknown kind of data file {path.suffix!r}; have {', '.join(kinds)}")
    return kinds[path.suffix]


def scan(
    path: Path, column: str = "auto", *, kind: Kind | None = None, budget_bytes: int | None = None
) -> Scan:
    """Checks every row of a data file, or the rows that start in its first `budget_bytes`.

    Raises DataError that lists up to MAX_PROBLEMS problems, each as file:line.
    """
    chosen = kind or kind_of(path)
    if not path.is_file():
        raise DataError(f"{path}: no such data file; check the path in the recipe")
    found = Scan(path, chosen, array("Q"), array("Q"), 0, path.stat().st_size)
    problems: list[str] = []
    end = 0
    for offset, line, raw in _raw_rows(path, chosen):
        if budget_bytes is not None and offset >= budget_bytes:
            break
        end = offset + len(raw)
        try:
            _content(raw, chosen, column)
        except ValueError as exc:
            problems.append(f"{path}:{line}: {exc}")
            if len(problems) == MAX_PROBLEMS:
                break
        found.offsets.append(offset)
        found.lines.append(line)
    else:
        end = found.size_bytes
    if problems:
        raise DataError("\n".join(problems))
    if not found.rows:
        raise DataError(f"{path}:1: the file holds no rows; {_EXPECTED[chosen]}")
    return Scan(path, chosen, found.offsets, found.lines, end, found.size_bytes)


def read(found: Scan, column: str, picks: Sequence[int]) -> Iterator[Row]:
    """Yields the picked rows (indices into the scan) in the order given."""
    with found.path.open("rb") as file:
        for pick in picks:
            file.seek(found.offsets[pick])
            raw = _one_row(file.readline, found.kind)
            try:
                content = _content(raw, found.kind, column)
            except ValueError as exc:
                raise DataError(f"{found.path}:{found.lines[pick]}: {exc}") from None
            yield Row(found.lines[pick], content)


_EXPECTED = {
    "jsonl": "give one JSON object per line",
    "txt": "give paragraphs separated by blank lines",
}


def _one_row(readline: Callable[[], bytes], kind: Kind) -> bytes:
    """The row that starts where `readline` stands."""
    first = readline()
    if kind == "jsonl":
        return first
    parts = [first]
    while (line := readline()).strip():
        parts.append(line)
    return b"".join(parts)


def _raw_rows(path: Path, kind: Kind) -> Iterator[tuple[int, int, bytes]]:
    """Yields (byte offset, line, bytes) of each row; blank lines at the end of a file are no rows."""
    return _lines(path) if kind == "jsonl" else _paragraphs(path)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    offset, blank = 0, list[tuple[int, int, bytes]]()
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield from blank  # blank lines that rows follow are broken rows
                blank.clear()
                yield offset, number, raw
            elif not blank:
                blank.append((offset, number, raw))
            offset += len(raw)


def _paragraphs(path: Path) -> Iterator[tuple[int, int, bytes]]:
    offset, start, begun, parts = 0, 0, 0, list[bytes]()
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                if not parts:
                    start, begun = offset, number
                parts.append(raw)
            elif parts:
                yield start, begun, b"".join(parts)
                parts = []
            offset += len(raw)
    if parts:
        yield start, begun, b"".join(parts)


def _content(raw: bytes, kind: Kind, column: str) -> Content:
    """What a row holds; raises ValueError that says what is wrong with it."""
    if b"\0" in raw:
        raise ValueError(f"NUL byte at position {raw.index(0) + 1} of the row; save the file as UTF-8 text")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"not UTF-8 at byte {exc.start + 1} of the row ({exc.reason}); save the file as UTF-8"
        ) from None
    if kind == "txt":
        return text.strip()
    if not text.strip():
        raise ValueError("blank line between rows; remove it or give a JSON object")
    return _field(_object(text.rstrip()), column)


def _object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ValueError(
            f"not valid JSON ({exc.msg} at column {exc.colno}); give one JSON object per line"
        ) from None
    except RecursionError:
        raise ValueError("JSON nested too deeply; give one flat JSON object per line") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {_json_type(row)}, not an object; give one JSON object per line")
    return row


def _field(row: dict[str, Any], column: str) -> Content:
    """Text or messages in the row's field."""
    wanted = AUTO_COLUMNS if column == "auto" else (column,)
    have = [name for name in wanted if name in row]
    names = ", ".join(map(repr, row)) or "no fields"
    if not have:
        raise ValueError(
            f"no field {' or '.join(map(repr, wanted))}; the row has {names}; name one in 'column'"
        )
    if len(have) > 1:
        raise ValueError("both 'text' and 'messages' are there; choose one with 'column'")
    value = row[have[0]]
    if isinstance(value, list):
        return _messages(have[0], value)
    return _text(f"field {have[0]!r}", value)


def _messages(name: str, value: list[Any]) -> list[Message]:
    if not value:
        raise ValueError(f"field {name!r} is an empty list; give at least one message")
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f"message {number} of field {name!r} has no 'role' and 'content'; fix it or drop the row"
            )
        _text(f"'role' of message {number}", message["role"])
        _text(f"'content' of message {number}", message["content"])
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is a JSON {_json_type(value)}; it must be text")
    if not value.strip():
        raise ValueError(f"{what} is empty; give text or drop the row")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(
            f"{what} has half a surrogate pair at character {exc.start + 1}; it must be valid Unicode"
        ) from None
    return value


def _json_type(value: Any) -> str:
    """JSON's name of a parsed value's type."""
    if value is None:
        return "null"
    names = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "number")
