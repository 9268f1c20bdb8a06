"""Draws the rows of a blend and tokenizes them; runs in a child process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calibration.data.blend import order, pick, shares
from calibration.data.chats import Chat
from calibration.data.fields import words
from calibration.data.origin import open_sources
from calibration.data.packing import Ids, Side, cut, fitted
from calibration.data.rendering import Reader, Rendering
from calibration.data.report_values import ChatChanges, SourceReport
from calibration.data.sameness import fingerprint, loose_fingerprint
from calibration.data.scan import Sample, Scan
from calibration.errors import DataError
from calibration.parameters import Blend, DrawnSource
from calibration.step_progress import Progress

FIRST_ROWS = 256
"""Rows tokenized at first for a total in tokens; the number doubles until they suffice."""

TICK_ROWS = 32
"""Rows tokenized between two progress reports."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Length of the sequence of each row, and the side on which longer rows are cut; None: not cut."""

    length: int | None = None
    side: Side = "right"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as tokens, with its origin."""

    source: int
    """Index of the source."""
    file: str
    """Name of the data file, without its directory."""
    line: int
    token_ids: npt.NDArray[np.int32]
    full_tokens: int
    """Tokens before the row was cut."""
    exact: str
    """Fingerprint of the row's text."""
    normalised: str
    """Fingerprint of the row's text without case and white space."""

    decoded: bool = False
    """Whether arguments of a tool call were decoded from a JSON string."""

    whole_start: bool = True
    """Whether the first token is the row's first: false if the left was cut off."""

    @property
    def place(self) -> str:
        """File and line of the row."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of all sources in the blend's order, and the report of each source."""

    samples: tuple[TokenRow, ...]
    sources: tuple[SourceReport, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn: the sources with their files on this host, and the seed of the shuffle."""

    data: Sequence[DrawnSource]
    files: Sequence[Sequence[Path]]
    seed: int
    blend: Blend | None = None
    """How much of all sources together is taken; without, each source says how much of it."""
    fit: Fit = Fit()


def draw(drawing: Drawing, reader: Reader, progress: Progress) -> TokenRows:
    """Checks, draws, renders and tokenizes rows, and shuffles them.

    Raises DataError for a source that cannot be used, or gives too little.
    """
    data, seed, blend = drawing.data, drawing.seed, drawing.blend
    scans = open_sources(data, drawing.files, progress)
    sizes = _sizes(blend, data, scans)
    rows: list[TokenRow] = []
    sources = []
    for number, (scan_, size) in enumerate(zip(scans, sizes, strict=True)):
        source = _Source(number, scan_, reader, Rendering.of(data[number]), drawing.fit)
        # A key per source: a change of one source leaves the rows of the others as they were.
        key = f"{seed}:{number}"
        by_tokens = blend is not None and blend.tokens is not None
        source_rows = source.tokens(size, key, progress) if by_tokens else source.rows(size, key, progress)
        rows += source_rows
        sources.append(_source_report(data[number], scan_, source_rows, source.chats(source_rows)))
    shuffled = [rows[index] for index in order(len(rows), f"{seed}:blend")]
    return TokenRows(tuple(shuffled), tuple(sources))


def _sizes(blend: Blend | None, data: Sequence[DrawnSource], scans: Sequence[Scan]) -> list[Any]:
    """Number of rows or tokens to draw from each source."""
    if blend is None:
        return [source.samples for source in data]
    total = blend.tokens or blend.samples or 0
    sizes = shares(total, blend.weights)
    for size, scan_ in zip(sizes, scans, strict=True):
        if size == 0:
            raise DataError(
                f"{scan_.files[0].path}: its weight's share of {total} is less than one; raise the total or "
                "the weight, or drop the source"
            )
    return sizes


@dataclass(frozen=True, slots=True)
class _Source:
    """One source, ready to be drawn from."""

    number: int
    scan: Scan
    reader: Reader
    how: Rendering
    fit: Fit

    def rows(self, size: int | Literal["all"], seed: str, progress: Progress) -> list[TokenRow]:
        """`size` rows, or all."""
        num_rows = self.scan.rows
        if size != "all" and num_rows < size:
            raise DataError(
                f"{self._where()}: {num_rows} rows, fewer than the {size} samples wanted; add rows, or lower "
                "'samples', the total or its weight"
            )
        picks = pick(num_rows, size, seed)
        rows = []
        for count, sample in enumerate(self.reader.ahead(self.scan.read(picks), self.how)):
            if count % TICK_ROWS == 0:
                progress(count, len(picks), "samples")
            rows.append(self._tokenized(sample))
        progress(len(picks), len(picks), "samples")
        return rows

    def tokens(self, size: int, seed: str, progress: Progress) -> list[TokenRow]:
        """Rows with `size` tokens in total, the last drawn one cut; in the order of the file."""
        ranks, rows_of, num_tokens = order(self.scan.rows, seed), dict[int, TokenRow](), 0
        position, step = 0, FIRST_ROWS
        while num_tokens < size and position < len(ranks):
            # How many rows make `size` tokens is known only after they are tokenized; doubling bounds the
            # surplus.
            chunk = ranks[position : position + step]
            rows = self._chunk(chunk, partial(progress, num_tokens, size, "tokens"))
            for index in chunk:
                # The rest of the chunk was only tokenized ahead: earlier ranks come first.
                if num_tokens == size:
                    break
                rows_of[index] = self._shortened(
                    rows[index], cut(rows[index].token_ids, size - num_tokens, self.fit.side)
                )
                num_tokens += len(rows_of[index].token_ids)
            position, step = position + step, 2 * step
        if num_tokens < size:
            raise DataError(
                f"{self._where()}: {self.scan.rows} rows hold {num_tokens} tokens, fewer than the {size}"
                " wanted; add rows, or lower the total or its weight"
            )
        progress(size, size, "tokens")
        # `draw` shuffles all sources together afterwards.
        return [rows_of[index] for index in sorted(rows_of)]

    def _chunk(self, picks: Sequence[int], tick: Callable[[], None]) -> dict[int, TokenRow]:
        rows = {}
        # In the order of the file, which readers pass once; the caller goes back to the drawn order.
        rising = sorted(picks)
        samples = self.reader.ahead(self.scan.read(rising), self.how)
        for count, (index, sample) in enumerate(zip(rising, samples, strict=True)):
            if count % TICK_ROWS == 0:
                tick()
            rows[index] = self._tokenized(sample)
        return rows

    def _tokenized(self, sample: Sample) -> TokenRow:
        ids = self.reader.token_ids(sample.content, self.how, sample.place)
        if len(ids) == 0:
            raise DataError(f"{sample.place}: the tokenizer returns no tokens for the row; drop it")
        text = words(sample.content)
        row = TokenRow(
            source=self.number,
            file=sample.file,
            line=sample.line,
            token_ids=ids,
            full_tokens=len(ids),
            exact=fingerprint(text),
            normalised=loose_fingerprint(text),
            decoded=isinstance(sample.content, Chat) and sample.content.decoded,
        )
        if self.fit.length is None:
            return row
        return self._shortened(row, fitted(ids, self.fit.length, self.fit.side, self.reader.prefix))

    def _shortened(self, row: TokenRow, token_ids: Ids) -> TokenRow:
        if len(token_ids) == len(row.token_ids):
            return row
        return replace(row, token_ids=token_ids, whole_start=self.fit.side == "right" and row.whole_start)

    def chats(self, rows: Sequence[TokenRow]) -> ChatChanges:
        """Changes to chats before they were rendered, for reports."""
        return {
            "arguments_decoded": sum(row.decoded for row in rows),
            "date": self.how.date if self.how in self.reader.dated else None,
        }

    def _where(self) -> Path:
        return self.scan.files[0].path


def _source_report(
    data: DrawnSource, scan_: Scan, rows: Sequence[TokenRow], chats: ChatChanges
) -> SourceReport:
    """Files, shape and counts of a source, for reports."""
    names = [file.path.name for file in scan_.files]
    return {
        "file": names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
        "digests": list(data.digests or ()),
        "read_as": scan_.shape.as_dict(),
        "rows": scan_.rows,
        "skipped": list(scan_.skipped),
        "taken": len(rows),
        "tokens": int(sum(len(row.token_ids) for row in rows)),
        "chats": chats,
    }
