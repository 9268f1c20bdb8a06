"""Draws the rows of a blend and turns them into tokens; runs in a child process."""

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
from calibration.data.sameness import fingerprint, loose_fingerprint
from calibration.data.scan import Sample, Scan
from calibration.errors import DataError
from calibration.parameters import Blend, DrawnSource

Progress = Callable[[int, int, str], None]

FIRST_ROWS = 256
"""Rows tokenized at first where a number of tokens is wanted; twice as many each time they do not suffice."""

TICK_ROWS = 32
"""Rows tokenized between two progress reports."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The sequence that each row makes, and where longer rows are cut; without a length, none is."""

    length: int | None = None
    side: Side = "right"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as tokens, and where it came from."""

    source: int
    """Which source, from 0."""
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
    """Whether the first token is the row's own first: false where the left was cut off."""

    @property
    def place(self) -> str:
        """Where the row stands."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows of all sources in the blend's order, and what each source gave."""

    samples: tuple[TokenRow, ...]
    sources: tuple[dict[str, Any], ...]


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
    for number, (found, size) in enumerate(zip(scans, sizes, strict=True)):
        one = _Source(number, found, reader, Rendering.of(data[number]), drawing.fit)
        key = f"{seed}:{number}"
        by_tokens = blend is not None and blend.tokens is not None
        taken = one.tokens(size, key, progress) if by_tokens else one.rows(size, key, progress)
        rows += taken
        sources.append({**_account(data[number], found, taken), "chats": one.chats(taken)})
    shuffled = [rows[index] for index in order(len(rows), f"{seed}:blend")]
    return TokenRows(tuple(shuffled), tuple(sources))


def _sizes(blend: Blend | None, data: Sequence[DrawnSource], scans: Sequence[Scan]) -> list[Any]:
    """Rows, or tokens, that each source gives."""
    if blend is None:
        return [source.samples for source in data]
    total = blend.tokens or blend.samples or 0
    sizes = shares(total, blend.weights)
    for size, found in zip(sizes, scans, strict=True):
        if size == 0:
            raise DataError(
                f"{found.files[0].path}: its weight's share of {total} is less than one; raise the total or "
                "the weight, or drop the source"
            )
    return sizes


@dataclass(frozen=True, slots=True)
class _Source:
    """One source, ready to be drawn from."""

    number: int
    found: Scan
    reader: Reader
    how: Rendering
    fit: Fit

    def rows(self, size: int | Literal["all"], seed: str, progress: Progress) -> list[TokenRow]:
        """`size` rows, or all."""
        have = self.found.rows
        if size != "all" and have < size:
            raise DataError(
                f"{self._where()}: {have} rows, fewer than the {size} samples wanted; add rows, or lower "
                "'samples', the total or its weight"
            )
        picks = pick(have, size, seed)
        made = []
        for count, sample in enumerate(self.reader.ahead(self.found.read(picks), self.how)):
            if count % TICK_ROWS == 0:
                progress(count, len(picks), "samples")
            made.append(self._tokenized(sample))
        progress(len(picks), len(picks), "samples")
        return made

    def tokens(self, size: int, seed: str, progress: Progress) -> list[TokenRow]:
        """Rows of `size` tokens together, the last one cut; in the order of the file."""
        ranks, taken, have = order(self.found.rows, seed), dict[int, TokenRow](), 0
        at, step = 0, FIRST_ROWS
        while have < size and at < len(ranks):
            chunk = ranks[at : at + step]
            rows = self._chunk(chunk, partial(progress, have, size, "tokens"))
            for index in chunk:
                if have == size:
                    break
                taken[index] = self._shortened(
                    rows[index], cut(rows[index].token_ids, size - have, self.fit.side)
                )
                have += len(taken[index].token_ids)
            at, step = at + step, 2 * step
        if have < size:
            raise DataError(
                f"{self._where()}: {self.found.rows} rows hold {have} tokens, fewer than the {size} wanted; "
                "add rows, or lower the total or its weight"
            )
        progress(size, size, "tokens")
        return [taken[index] for index in sorted(taken)]

    def _chunk(self, picks: Sequence[int], tick: Callable[[], None]) -> dict[int, TokenRow]:
        made = {}
        rising = sorted(picks)
        samples = self.reader.ahead(self.found.read(rising), self.how)
        for count, (index, sample) in enumerate(zip(rising, samples, strict=True)):
            if count % TICK_ROWS == 0:
                tick()
            made[index] = self._tokenized(sample)
        return made

    def _tokenized(self, sample: Sample) -> TokenRow:
        ids = self.reader.token_ids(sample.content, self.how, sample.place)
        if len(ids) == 0:
            raise DataError(f"{sample.place}: the tokenizer makes no tokens of the row; drop it")
        said = words(sample.content)
        row = TokenRow(
            source=self.number,
            file=sample.file,
            line=sample.line,
            token_ids=ids,
            full_tokens=len(ids),
            exact=fingerprint(said),
            normalised=loose_fingerprint(said),
            decoded=isinstance(sample.content, Chat) and sample.content.decoded,
        )
        if self.fit.length is None:
            return row
        return self._shortened(row, fitted(ids, self.fit.length, self.fit.side, self.reader.prefix))

    def _shortened(self, row: TokenRow, kept: Ids) -> TokenRow:
        if len(kept) == len(row.token_ids):
            return row
        return replace(row, token_ids=kept, whole_start=self.fit.side == "right" and row.whole_start)

    def chats(self, taken: Sequence[TokenRow]) -> dict[str, Any]:
        """What was done to chats before the template saw them, for reports."""
        return {
            "arguments_decoded": sum(row.decoded for row in taken),
            "date": self.how.date if self.how in self.reader.dated else None,
        }

    def _where(self) -> Path:
        return self.found.files[0].path


def _account(data: DrawnSource, found: Scan, taken: Sequence[TokenRow]) -> dict[str, Any]:
    """What a source consists of and gave, for reports."""
    names = [file.path.name for file in found.files]
    return {
        "file": names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
        "digests": list(data.digests or ()),
        "read_as": found.shape.as_dict(),
        "rows": found.rows,
        "skipped": list(found.skipped),
        "taken": len(taken),
        "tokens": int(sum(len(row.token_ids) for row in taken)),
    }
