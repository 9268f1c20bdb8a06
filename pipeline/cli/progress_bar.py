"""How far one piece of work is, on stderr: a bar with an ETA on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cli.output import Output
from pipeline.cli.progress import LINE_EVERY_S, count
from pipeline.units import duration


class Moving:
    """Shows how far one piece of work is; to be called with units done and units in all."""

    def __init__(self, out: Output, label: str) -> None:
        self.out, self.what = out, label
        self.live = out.stderr.is_terminal and not out.quiet
        self.since = self.said = time.monotonic()
        self.unit = ""
        """Of the current phase; another unit is another phase, timed by itself."""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=out.stderr,
            transient=True,
        )
        self.task = self.bar.add_task(label, total=None, numbers="")

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.live:  # it prints an empty line where it never started
            self.bar.stop()

    def __call__(self, done: int, total: int, unit: str = "bytes") -> None:
        """Moves the bar, or says a line when the last one is old."""
        now = time.monotonic()
        if unit != self.unit:
            self.since, self.unit = now, unit
        rate = done / max(now - self.since, 1e-9)
        numbers = f"{count(done, unit)}/{count(total, unit)}{_named(unit)}, {count(rate, unit)}/s"
        if self.live:
            self.bar.update(self.task, completed=done, total=total, numbers=numbers)
        elif now - self.said > LINE_EVERY_S:
            self.said = now
            remaining = duration((total - done) / rate) if done else "unknown"
            self.out.say(f".. {self.what}  {numbers}, eta {remaining}")


def _named(unit: str) -> str:
    """What is counted, unless the numbers say it themselves."""
    return "" if unit == "bytes" else f" {unit}"
