"""Scans a source: checks every row and records the positions of valid ones; standard library only."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from calibration.data.fields import Content, Shape, choose, content, widen
from calibration.data.text_files import EXPECTED, Row, RowFile
from calibration.errors import DataError
from calibration.step_progress import Progress

MAX_PROBLEMS = 10
"""Problems after which a scan ends: enough to see a pattern, few enough to read."""

TICK_ROWS = 4096
"""Rows checked between two progress reports."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A row's content and position."""

    file: str
    """Name of the file, without its directory."""
    line: int
    place: str
    """Path and line or row, for messages."""
    content: Content


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of scanning a source; a source with too many invalid rows raises instead."""

    files: tuple[RowFile, ...]
    shape: Shape
    skipped: tuple[str, ...]
    """Skipped rows, each as file name, line and reason."""
    complete: bool
    """Whether everything was read; false where a byte budget ended the scan."""
    owners: "array[int]" = field(default_factory=lambda: array("L"))
    """Index of each valid row's file."""
    positions: "array[int]" = field(default_factory=lambda: array("Q"))
    """Position of each valid row in its file."""
    lines: "array[int]" = field(default_factory=lambda: array("Q"))
    """Line of each valid row, or row of a table, from 1."""

    @property
    def rows(self) -> int:
        """Number of valid rows."""
        return len(self.positions)

    def read(self, picks: Sequence[int]) -> Iterator[Sample]:
        """Yield the picked rows, by index among the valid ones, in the given order."""
        position = 0
        while position < len(picks):
            owner, run = self.owners[picks[position]], [picks[position]]
            while position + len(run) < len(picks) and self.owners[picks[position + len(run)]] == owner:
                run.append(picks[position + len(run)])
            yield from self._read(self.files[owner], run)
            position += len(run)

    def _read(self, file: RowFile, picks: Sequence[int]) -> Iterator[Sample]:
        columns = list(self.shape.columns.values())
        rows = file.read([self.positions[pick] for pick in picks], columns)
        for pick in picks:
            line = self.lines[pick]
            try:
                content_ = content(self.shape, next(rows))
            except ValueError as exc:
                raise DataError(f"{place(file, line)}: {exc}") from None
            yield Sample(file.path.name, line, place(file, line), content_)


def place(file: RowFile, line: int) -> str:
    """The name of a row in messages: path and line, or path and row of a table."""
    return f"{file.path}:{line}" if file.unit == "line" else f"{file.path}: row {line}"


def scan(
    files: Sequence[RowFile],
    kind: str,
    roles: Mapping[str, str],
    *,
    allowed: int = 0,
    budget_bytes: int | None = None,
    progress: Progress = lambda *_: None,
) -> Scan:
    """Check every row of a source's files, or the rows that start in each one's first `budget_bytes`.

    DataError, with up to MAX_PROBLEMS problems as file:line, for more than `allowed` invalid rows, or no
    valid row.
    """
    checker = _Checker(roles, allowed)
    complete = True
    for number, file in enumerate(files):
        checker.look_at(file)
        # Not `and`, which would skip the files after the first incomplete one.
        complete &= checker.check(number, file, budget_bytes, progress)
    checker.judge()
    if checker.shape is None or not checker.positions:
        raise DataError(f"{files[0].path}:1: the file has no rows; {EXPECTED[kind]}")
    return Scan(
        tuple(files),
        checker.shape,
        tuple(checker.skipped),
        complete,
        checker.owners,
        checker.positions,
        checker.lines,
    )


class _Checker:
    """The state of a scan."""

    def __init__(self, roles: Mapping[str, str], allowed: int) -> None:
        self.roles, self.allowed = roles, allowed
        self.shape: Shape | None = None
        self.owners, self.positions, self.lines = array("L"), array("Q"), array("Q")
        self.problems: list[str] = []
        """With whole paths, for an error."""
        self.skipped: list[str] = []
        """With names only, for a report."""

    def look_at(self, file: RowFile) -> None:
        """Choose the columns by the first file with a header or schema."""
        names = file.names()
        if self.shape is None and names:
            try:
                self.shape = choose(self.roles, names)
            except ValueError as exc:
                raise DataError(f"{file.path}: {exc}") from None

    def check(self, number: int, file: RowFile, budget_bytes: int | None, progress: Progress) -> bool:
        """Check a file's rows; return whether all of them were read."""
        unit = "bytes scanned" if file.unit == "line" else "rows scanned"
        columns = list(self.shape.columns.values()) if self.shape else []
        extent = file.extent
        for count, row in enumerate(file.rows(columns)):
            if budget_bytes is not None and row.position >= budget_bytes:
                return False
            if count % TICK_ROWS == 0:
                # Rarely: a report per row would cost more than the check of the row.
                progress(row.position, extent, unit)
            self.take(number, file, row)
        return True

    def take(self, number: int, file: RowFile, row: Row) -> None:
        """Record the position of a valid row, or the problem of an invalid one."""
        try:
            self._content(row)
        except ValueError as exc:
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(f"{place(file, row.line)}: {exc}")
            place_ = f"{file.path.name}:{row.line}"
            self.skipped.append(f"{place_}: {exc}")
            # Ends a hopeless scan: the message shows no more problems than these.
            if len(self.skipped) >= self.allowed + MAX_PROBLEMS:
                self.judge()
            return
        self.owners.append(number)
        self.positions.append(row.position)
        self.lines.append(row.line)

    def _content(self, row: Row) -> Content:
        if isinstance(row.fields, ValueError):
            raise row.fields
        shape = widen(self.shape or choose(self.roles, row.fields), self.roles, row.fields)
        content_ = content(shape, row.fields)
        # Only after the row proved valid: a bad row must not widen the columns.
        self.shape = shape
        return content_

    def judge(self) -> None:
        """Raise DataError for more invalid rows than allowed."""
        if len(self.skipped) <= self.allowed:
            return
        if self.allowed:
            raise DataError(
                f"{len(self.skipped)} bad rows or more, {self.allowed} may be skipped; repair them or raise "
                "'bad_rows'\n" + "\n".join(f"  {problem}" for problem in self.problems)
            )
        raise DataError("\n".join(self.problems))
