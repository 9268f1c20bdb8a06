"""Progress of work that is counted in one number, with the time it still takes, on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.display import LINE_EVERY_S
from pipeline.output import Output, duration, size


class Reading:
    """Shows bytes done of bytes in all: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, out: Output, what: str) -> None:
        self.out, self.what = out, what
        self.live = out.stderr.is_terminal and not out.quiet
        self.since = self.said = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=out.stderr,
            transient=True,
        )
        self.task = self.bars.add_task(what, total=None, numbers="")

    def __enter__(self) -> Self:
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar, or says a line when the last one is old."""
        now = time.monotonic()
        rate = done / max(now - self.since, 1e-9)
        numbers = f"{size(done)}/{size(total)}, {size(rate)}/s"
        if self.live:
            self.bars.update(self.task, completed=done, total=total, numbers=numbers)
        elif now - self.said > LINE_EVERY_S:
            self.said = now
            self.out.say(f".. {self.what}  {numbers}, eta {duration((total - done) / max(rate, 1.0))}")
