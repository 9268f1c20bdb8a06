"""Reads tables: Parquet files, and the Arrow files of a saved `datasets` directory."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calibration.data.fields import Fields
from calibration.data.text_files import KINDS, ROW_BYTES, Row, RowFile
from calibration.errors import DataError

BATCH_ROWS = 256
"""Rows converted to Python values at a time."""

GROUP_BYTES = 4 << 30
"""Largest row group by the file's own metadata: it is decoded into memory at once."""

TEXTS = ("string", "large_string", "binary", "large_binary")
"""Arrow's types of text."""

BROKEN = (pa.ArrowException, OSError, EOFError)
"""Exceptions of pyarrow for malformed files."""


class Table:
    """The common part of both kinds of tables."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def schema(self) -> Any:
        """Names and types of the columns."""
        raise NotImplementedError

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """The table's rows in order, in batches."""
        raise NotImplementedError

    def row(self, position: int, columns: list[str]) -> Any:
        """One row, as a batch of one."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The columns."""
        with _ReportBrokenFile(self.path):
            return list(self.schema.names)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row in order, by its number from 1."""
        number, batches = 0, self.batches(self._own(columns))
        while True:
            with _ReportBrokenFile(self.path):
                batch = next(batches, None)
            if batch is None:
                return
            for fields in _values(batch):
                yield Row(number, number + 1, fields)
                number += 1

    def read(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[Fields]:
        """The rows with these numbers, from 0."""
        own = self._own(columns)
        for position in positions:
            with _ReportBrokenFile(self.path):
                batch = self.row(position, own)
            fields = _value(batch)
            if isinstance(fields, ValueError):
                raise fields
            yield fields

    def _own(self, columns: Sequence[str]) -> list[str]:
        return [name for name in self.names() if name in columns]


class Parquet(Table):
    """A Parquet file; one row group is in memory at a time."""

    group: tuple[int, list[str], Any] = (-1, [], None)
    """Number, columns and rows of the row group read last."""

    def __init__(self, path: Path, group_bytes: int = GROUP_BYTES) -> None:
        super().__init__(path)
        self.group_bytes = group_bytes

    @cached_property
    def file(self) -> pq.ParquetFile:
        """The file, opened; its footer is checked."""
        with _ReportBrokenFile(self.path):
            # Only the footer: sizes are checked before any row group is decoded.
            metadata = pq.read_metadata(self.path, memory_map=True)
        for number, group in enumerate(map(metadata.row_group, range(metadata.num_row_groups))):
            if group.total_byte_size > self.group_bytes:
                raise DataError(
                    f"{self.path}: row group {number} unpacks to {group.total_byte_size:,} bytes, at most "
                    f"{self.group_bytes:,} are read; write the file with a smaller row_group_size"
                )
        columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
        # Read texts as dictionaries: a text that many rows share is in memory once, however many there are.
        shared = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        with _ReportBrokenFile(self.path):
            return pq.ParquetFile(self.path, memory_map=True, metadata=metadata, read_dictionary=shared)

    @property
    def schema(self) -> Any:
        """Names and types of the columns."""
        return self.file.schema_arrow

    @property
    def extent(self) -> int:
        """Number of rows."""
        return int(self.file.metadata.num_rows)

    @cached_property
    def starts(self) -> list[int]:
        """Number of the first row of each row group, and of the row after the last."""
        metadata = self.file.metadata
        return [
            0,
            *accumulate(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)),
        ]

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """The rows in order."""
        batches: Iterator[Any] = self.file.iter_batches(BATCH_ROWS, columns=columns)
        return batches

    def row(self, position: int, columns: list[str]) -> Any:
        """One row; its row group is kept for the next."""
        # Positions rise, so that each row group is decoded once.
        number = next(index for index, end in enumerate(self.starts[1:]) if position < end)
        if self.group[:2] != (number, columns):
            self.group = (number, columns, self.file.read_row_group(number, columns=columns))
        return self.group[2].slice(position - self.starts[number], 1)


class Arrow(Table):
    """An Arrow file as `datasets` writes it: a stream of record batches, mapped into memory."""

    @cached_property
    def table(self) -> pa.Table:
        """The rows, not copied."""
        with _ReportBrokenFile(self.path):
            return pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all()

    @property
    def schema(self) -> Any:
        """Names and types of the columns."""
        return self.table.schema

    @property
    def extent(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """The rows in order."""
        batches: Iterator[Any] = iter(self.table.select(columns).to_batches(BATCH_ROWS))
        return batches

    def row(self, position: int, columns: list[str]) -> Any:
        """One row."""
        return self.table.select(columns).slice(position, 1)


def open_file(path: Path, kind: str) -> RowFile:
    """The reader of a data file of kind `jsonl`, `txt`, `csv`, `parquet` or `arrow`."""
    if kind in KINDS:
        return KINDS[kind](path)
    return Parquet(path) if kind == "parquet" else Arrow(path)


class _ReportBrokenFile:
    """Turns exceptions of pyarrow into a DataError with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, BROKEN):
            reason = str(exc).splitlines()[0]
            raise DataError(
                f"{self.path}: not a whole table ({reason}); write or get the file again"
            ) from None


def _values(batch: Any) -> Iterator[Fields | ValueError]:
    """A batch's rows as Python values; a ValueError in place of a row that is too long or not UTF-8."""
    # The fast way for whole batches; one by one only where a row is too long or not UTF-8.
    if _decoded_bytes(batch) <= ROW_BYTES:
        try:
            yield from [_present(row) for row in batch.to_pylist()]
            return
        except UnicodeDecodeError:
            pass
    for index in range(batch.num_rows):
        yield _value(batch.slice(index, 1))


def _decoded_bytes(value: Any) -> int:
    """Bytes of a table or array as Python values, in which every row has its own copy of a shared text."""
    kind, types = getattr(value, "type", None), pa.types
    if kind is None:
        parts = value.columns
    elif isinstance(value, pa.ChunkedArray):
        parts = value.chunks
    elif types.is_list(kind) or types.is_large_list(kind):
        parts = [value.flatten()]
    elif types.is_struct(kind):
        parts = value.flatten()
    elif types.is_dictionary(kind) and str(kind.value_type) in TEXTS:
        # A text shared by many rows is in memory once here, but once per row as Python values.
        lengths = pc.binary_length(value.dictionary)
        return int(pc.sum(lengths.take(value.indices)).as_py() or 0)
    else:
        return int(value.nbytes)
    return sum(map(_decoded_bytes, parts))


def _value(row: Any) -> Fields | ValueError:
    if (size := _decoded_bytes(row)) > ROW_BYTES:
        return ValueError(f"a row of {size:,} bytes; at most {ROW_BYTES:,} are read, split it")
    try:
        (fields,) = row.to_pylist()
    except UnicodeDecodeError as exc:
        return ValueError(f"text that is not UTF-8 at byte {exc.start + 1} ({exc.reason}); write it as UTF-8")
    return _present(fields)


def _present(fields: Fields) -> Fields:
    """A row without null fields of structs: a table has the keys of all rows in every row."""
    return {name: _without_nulls(value) for name, value in fields.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    # Items of lists stay, even null ones: their positions matter.
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
