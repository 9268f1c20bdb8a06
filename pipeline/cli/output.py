"""The only module that prints: answers on stdout, progress and messages on stderr."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDE = 200
"""Width of tables where stdout is not a terminal."""


@dataclass
class Output:
    """Prints answers as tables, as one JSON document (`--json`) or as bare ids (`--quiet`)."""

    json_mode: bool = False
    quiet: bool = False
    color: bool = True
    documents: list[Any] = field(default_factory=list)
    """Answers of a JSON run, printed as one document by `flush`."""
    answered: bool = False
    """Whether a JSON run has printed its document."""

    @cached_property
    def stdout(self) -> Console:
        """Where answers go."""
        # rich takes 80 columns where there is no terminal, and would fold the tables
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
        return Console(no_color=not self.color, highlight=False, width=width)

    @cached_property
    def stderr(self) -> Console:
        """Where progress and messages go."""
        return Console(stderr=True, no_color=not self.color, highlight=False)

    def rows(self, rows: Sequence[Mapping[str, Any]], *, id_column: str, title: str = "") -> None:
        """Prints rows; columns are the keys of the first row."""
        if self.json_mode:
            self.documents.append([dict(row) for row in rows])
        elif self.quiet:
            for row in rows:
                self.line(str(row[id_column]))
        elif rows:
            self.stdout.print(_table(rows, title))

    def value(self, value: Mapping[str, Any], *, text: str, short: str = "") -> None:
        """Prints one answer: `value` as JSON, `short` when quiet, else `text`."""
        if self.json_mode:
            self.documents.append(dict(value))
        else:
            self.line(short or text if self.quiet else text)

    def line(self, text: str) -> None:
        """Prints a line of the answer as it is, however wide."""
        # soft_wrap: a line that is folded cannot be copied or piped
        self.stdout.print(visible(text), markup=False, soft_wrap=True)

    def stream(self, text: str) -> None:
        """Prints a piece of text at once, without a line end."""
        # a JSON run has the whole text in its document
        if not self.json_mode:
            sys.stdout.write(text)
            sys.stdout.flush()

    def flush(self) -> None:
        """Ends a JSON run: one document, a list only where there were several answers."""
        if self.json_mode and self.documents:
            sys.stdout.write(json.dumps(self._whole(), indent=2, default=str) + "\n")
            sys.stdout.flush()
            # cleared, as a command that follows an alias prints a document per change
            self.documents.clear()
            self.answered = True

    def failed(self, failure: Mapping[str, Any]) -> None:
        """Prints the error document of a JSON run; answers so far stand beside it, as `answer`."""
        # a second document would make the output no JSON
        if self.json_mode and not self.answered:
            answer = {"answer": self._whole()} if self.documents else {}
            self.documents[:] = [{**failure, **answer}]
            self.flush()

    def _whole(self) -> Any:
        return self.documents[0] if len(self.documents) == 1 else list(self.documents)

    def say(self, text: str) -> None:
        """Prints a message, unless quiet."""
        if not self.quiet:
            self.stderr.print(visible(text), markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a warning."""
        # control characters first, then what rich takes for markup
        self.stderr.print(f"[yellow]warning:[/] {escape(visible(text))}", soft_wrap=True)

    def notice(self, tone: str, text: str) -> None:
        """Prints a notice about an answer: `info` as a message, other tones as a warning."""
        if tone == "info":
            self.say(text)
        else:
            self.warn(text)

    def error(self, text: str, notes: Sequence[str] = ()) -> None:
        """Prints why the command failed; hints follow after an empty line."""
        self.stderr.print(f"[red]error:[/] {escape(visible(text))}", soft_wrap=True)
        for note in notes:
            self.stderr.print(f"\n[cyan]hint:[/] {escape(visible(note))}", soft_wrap=True)


def _table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    table = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in rows[0]:
        # a column is of numbers only if every value is; a missing one does not decide
        numeric = {type(row[name]) for row in rows} - {NoneType} <= {int, float}
        # a key that is folded cannot be copied
        table.add_column(
            name.replace("_", " "), justify="right" if numeric else "left", no_wrap=name == "key"
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return escape(visible(str(value)))


def visible(text: str) -> str:
    """The text with every control character and other unprintable character escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
