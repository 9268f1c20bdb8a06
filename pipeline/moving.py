"""Bytes on their way, on stderr: a bar with an ETA on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.output import Output, duration, size

LINE_EVERY_S = 15.0


class Moving:
    """Shows how far one transfer is; to be called with bytes done and bytes in all."""

    def __init__(self, out: Output, what: str) -> None:
        self.out, self.what = out, what
        self.live = out.stderr.is_terminal and not out.quiet
        self.since = self.said = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=out.stderr,
            transient=True,
        )
        self.task = self.bar.add_task(what, total=None, numbers="")

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar, or says a line when the last one is old."""
        now = time.monotonic()
        rate = done / max(now - self.since, 1e-9)
        numbers = f"{size(done)}/{size(total)}, {size(rate)}/s"
        if self.live:
            self.bar.update(self.task, completed=done, total=total, numbers=numbers)
        elif now - self.said > LINE_EVERY_S:
            self.said = now
            left = duration((total - done) / rate) if done else "unknown"
            self.out.say(f".. {self.what}  {numbers}, eta {left}")
