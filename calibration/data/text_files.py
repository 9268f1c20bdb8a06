"""Reads data files line by line: JSONL, paragraphs, CSV; standard library only, since plans use it."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from calibration.data.fields import Fields
from calibration.data.values import json_type
from calibration.errors import DataError

ROW_BYTES = 16 << 20
"""Longest row that is read, which bounds the memory for a file without line ends; parsed JSON may take about
25 times as much."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    position: int
    """Position for `read`: byte offset, or number from 0 in a table."""
    line: int
    """Line of the file, or row of a table, from 1."""
    fields: Fields | ValueError
    """Its values, or its problem."""


class RowFile(Protocol):
    """A file of rows."""

    @property
    def path(self) -> Path:
        """Path of the file."""

    @property
    def unit(self) -> str:
        """Unit of `line`: `line`, or `row` of a table."""

    @property
    def extent(self) -> int:
        """Upper end of the rows' positions: the file's bytes or the table's rows."""

    def names(self) -> list[str] | None:
        """Its columns; None where rows have their own columns."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row in order, with at least those of `columns` that it has."""

    def read(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[Fields]:
        """The rows at these positions, in this order; ValueError for an unreadable row."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """The common part of line-based files."""

    path: Path

    @property
    def unit(self) -> str:
        """Lines are counted."""
        return "line"

    @property
    def extent(self) -> int:
        """Size in bytes."""
        return self.path.stat().st_size


class JsonLines(TextFile):
    """One JSON object per line; blank lines only at the end."""

    __slots__ = ()

    def names(self) -> None:
        """Every row has its own columns."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every line in order."""
        for offset, number, raw in _lines(self.path):
            yield Row(offset, number, _object_or_error(raw))

    def read(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[Fields]:
        """The objects that start at these bytes."""
        with self.path.open("rb") as file:
            for position in positions:
                file.seek(position)
                yield _object(file.readline())


class Paragraphs(TextFile):
    """Plain text; blank lines separate the rows, which have one column, `text`."""

    __slots__ = ()

    def names(self) -> list[str]:
        """The one column."""
        return ["text"]

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every paragraph in order."""
        for offset, number, raw in _paragraphs(self.path):
            try:
                yield Row(offset, number, {"text": _decode(raw).strip()})
            except ValueError as exc:
                yield Row(offset, number, exc)

    def read(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[Fields]:
        """The paragraphs that start at these bytes."""
        with self.path.open("rb") as file:
            for position in positions:
                file.seek(position)
                parts = [file.readline()]
                # An empty read, at the end of the file, ends the paragraph as a blank line does.
                while (line := file.readline()).strip():
                    parts.append(line)
                yield {"text": _decode(b"".join(parts)).strip()}


class Csv(TextFile):
    """Comma-separated values under a header; quoted fields may hold newlines."""

    __slots__ = ()

    def names(self) -> list[str]:
        """The header; DataError for an invalid one."""
        with self.path.open("rb") as file:
            _, _, header = next(_records(file), (0, 1, []))
        if isinstance(header, ValueError):
            raise DataError(f"{self.path}:1: {header}")
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise DataError(
                f"{self.path}:1: column {repeated[0]!r} is repeated in the header; rename one of them"
            )
        return header

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every record after the header in order, by the line that it starts on."""
        header = self.names()
        with self.path.open("rb") as file:
            records = _records(file)
            next(records, None)
            for offset, line, record in records:
                yield Row(offset, line, record if isinstance(record, ValueError) else _pair(header, record))

    def read(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[Fields]:
        """The records that start at these bytes."""
        header = self.names()
        with self.path.open("rb") as file:
            for position in positions:
                file.seek(position)
                _, _, record = next(_records(file), (0, 0, []))
                fields = record if isinstance(record, ValueError) else _pair(header, record)
                if isinstance(fields, ValueError):
                    raise fields
                yield fields


KINDS: dict[str, type[JsonLines] | type[Paragraphs] | type[Csv]] = {
    "jsonl": JsonLines,
    "txt": Paragraphs,
    "csv": Csv,
}
"""Kind of line-based file, which is also its suffix -> reader."""

FOREIGN = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as `surrogateescape` decodes them."""

EXPECTED = {
    "jsonl": "give one JSON object per line",
    "txt": "give paragraphs separated by blank lines",
    "csv": "give a header and one record per row",
    "parquet": "give a table with rows",
    "arrow": "give a split with rows",
}
"""Kind of file -> what it should contain."""


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (byte offset, line, bytes); blank lines at the end of a file are ignored."""
    offset, blank = 0, list[tuple[int, int, bytes]]()
    with path.open("rb") as file:
        for number, raw in enumerate(_bounded_lines(file, path), start=1):
            if raw.strip():
                yield from blank  # blank lines before a row are invalid rows
                blank.clear()
                yield offset, number, raw
            # The first of a run of blank lines stands for all of them.
            elif not blank:
                blank.append((offset, number, raw))
            offset += len(raw)


def _bounded_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Every line of a file; DataError for one that is too long, without reading its rest."""
    number = 1
    # A file without line breaks must not be read into memory as one line.
    while raw := file.readline(ROW_BYTES + 1):
        if len(raw) > ROW_BYTES:
            raise _too_long(path, number)
        yield raw
        number += 1


def _too_long(path: Path, line: int) -> DataError:
    return DataError(f"{path}:{line}: a row of more than {ROW_BYTES:,} bytes; end rows with line breaks")


def _paragraphs(path: Path) -> Iterator[tuple[int, int, bytes]]:
    offset, start, first_line, parts = 0, 0, 0, list[bytes]()
    with path.open("rb") as file:
        for number, raw in enumerate(_bounded_lines(file, path), start=1):
            if raw.strip():
                if not parts:
                    start, first_line = offset, number
                parts.append(raw)
                # Single lines are bounded above; many short ones could still make a row without end.
                if offset + len(raw) - start > ROW_BYTES:
                    raise _too_long(path, first_line)
            elif parts:
                yield start, first_line, b"".join(parts)
                parts = []
            offset += len(raw)
    if parts:
        yield start, first_line, b"".join(parts)


class _Feed:
    """Lines of a CSV file as text, counted; bytes that are not UTF-8 pass as surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.offset, self.line = file, file.tell(), 0
        self.record_start = (self.offset, self.line)
        """Start of the current record, in bytes and lines; the reader of records sets it."""

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        raw = self.file.readline(ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        offset, line = self.record_start
        if self.offset + len(raw) - offset > ROW_BYTES:
            raise _too_long(Path(self.file.name), line + 1)
        # Spreadsheets begin a file with a byte order mark, which would be part of the first column's name.
        codec = "utf-8-sig" if self.offset == 0 else "utf-8"
        self.offset += len(raw)
        self.line += 1
        return raw.decode(codec, "surrogateescape")


def _records(file: BinaryIO) -> Iterator[tuple[int, int, list[str] | ValueError]]:
    """Yields (byte offset, line it starts on, cells) of each record that is not blank."""
    csv.field_size_limit(ROW_BYTES)  # the module's own limit is 128 KiB a field
    feed = _Feed(file)
    reader = csv.reader(feed, strict=True)
    while True:
        # Before the record is read: the feed bounds its size from here on.
        feed.record_start = offset, line = feed.offset, feed.line
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield (
                offset,
                line + 1,
                ValueError(f"not valid CSV ({exc}); quote the field, and double quotes in it"),
            )
            continue
        if cells:
            yield offset, line + 1, cells


def _pair(header: list[str], cells: list[str]) -> Fields | ValueError:
    if len(cells) != len(header):
        return ValueError(f"{len(cells)} fields, the header has {len(header)}; quote fields with commas")
    for name, cell in zip(header, cells, strict=True):
        if not cell.isascii() and FOREIGN.search(cell):
            return ValueError(f"field {name!r} is not UTF-8; save the file as UTF-8")
    return dict(zip(header, cells, strict=True))


def _object_or_error(raw: bytes) -> Fields | ValueError:
    try:
        return _object(raw)
    except ValueError as exc:
        return exc


def _decode(raw: bytes) -> str:
    # NUL is valid UTF-8, but shows UTF-16 or a damaged file.
    if b"\0" in raw:
        raise ValueError(f"NUL byte at position {raw.index(0) + 1} of the row; save the file as UTF-8 text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"not UTF-8 at byte {exc.start + 1} of the row ({exc.reason}); save the file as UTF-8"
        ) from None


def _object(raw: bytes) -> Fields:
    line = _decode(raw).rstrip()
    if not line:
        raise ValueError("blank line between rows; remove it or give a JSON object")
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ValueError(
            f"not valid JSON ({exc.msg} at column {exc.colno}); give one JSON object per line"
        ) from None
    except RecursionError:
        raise ValueError("JSON nested too deeply; give one flat JSON object per line") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {json_type(row)}, not an object; give one JSON object per line")
    return row
