"""Progress on stderr: bars with an ETA on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.cli.output import Output
from pipeline.step.realize import Listener, Made
from pipeline.step.step import Step
from pipeline.units import duration, size

LINE_EVERY_S = 15.0
"""Seconds between progress lines where stderr is not a terminal."""


class Pace:
    """How fast work goes; another unit is another phase, timed by itself."""

    def __init__(self) -> None:
        self.since = self.last_line = time.monotonic()
        self.unit = ""

    def rate(self, done: int, unit: str) -> float:
        """Units per second of the current phase."""
        now = time.monotonic()
        if self.unit not in ("", unit):
            self.since = now
        self.unit = unit
        # the first call may come within the clock's resolution
        return done / max(now - self.since, 1e-9)

    def takes_line(self) -> bool:
        """Whether a line is due where there is no terminal; the next one is due some seconds later."""
        now = time.monotonic()
        due = now - self.last_line > LINE_EVERY_S
        self.last_line = now if due else self.last_line
        return due


class Display(Listener):
    """Shows a run; one line per finished step stays."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.live = out.stderr.is_terminal and not out.quiet
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=out.stderr,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.paces: dict[str, Pace] = {}

    def __enter__(self) -> Self:
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.live:  # it prints an empty line where it never started
            self.bars.stop()

    def started(self, step: Step) -> None:
        """Opens the step's bar."""
        self.paces[step.key] = Pace()
        if self.live:
            self.tasks[step.key] = self.bars.add_task(label(step), total=None, numbers="")

    def progressed(self, step: Step, done: int, total: int, unit: str) -> None:
        """Moves the bar, or prints a line if the last one is old."""
        pace = self.paces[step.key]
        rate = pace.rate(done, unit)
        speed = f", {count(rate, unit)}/s" if rate >= 1 else ""
        numbers = f"{count(done, unit)}/{count(total, unit)} {unit}{speed}"
        if self.live:
            self.bars.update(self.tasks[step.key], completed=done, total=total, numbers=numbers)
        elif pace.takes_line():
            self.out.say(f".. {label(step)}  {numbers}, eta {_remaining(done, total, rate)}")

    def waiting(self, step: Step, whom: str) -> None:
        """Prints which run the step waits for."""
        self.out.say(f".. {label(step)}  waits for {whom} to build it")

    def damaged(self, step: Step, problems: str) -> None:
        """Warns that a stored artifact is rebuilt."""
        self.out.warn(f"{label(step)}: stored files are damaged and will be built again: {problems}")

    def remarked(self, step: Step, text: str) -> None:
        """Prints a warning of the build."""
        self.out.warn(f"{label(step)}: {text}")

    def finished(self, artifact: Made) -> None:
        """Prints one line: step, key, duration, peak memory."""
        step = artifact.step
        self._close(step)
        took = "cached" if artifact.cached else duration(artifact.manifest.seconds)
        peak = artifact.manifest.peak_memory_bytes
        memory = f"peak {size(peak)}" if peak and not artifact.cached else ""
        self.out.say(f"{self._mark('✓', 'ok')} {label(step)}  {took:>7}  {memory:<14}  {step.what}".rstrip())
        for text in () if self.out.quiet else artifact.remarks():
            self.out.warn(text)

    def failed(self, step: Step, error: Exception) -> None:
        """Prints one line for a failed step."""
        self._close(step)
        self.out.say(f"{self._mark('✗', '!!')} {label(step)}  {escape(str(error).splitlines()[0])}")

    def _close(self, step: Step) -> None:
        if step.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(step.key))

    def _mark(self, mark: str, plain: str) -> str:
        return mark if self.out.stderr.encoding.lower().startswith("utf") else plain


class Bar:
    """Shows how far one piece of work is; to be called with units done and units in all."""

    def __init__(self, out: Output, label: str) -> None:
        self.out, self.label = out, label
        self.live = out.stderr.is_terminal and not out.quiet
        self.pace = Pace()
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
        """Moves the bar, or prints a line if the last one is old."""
        rate = self.pace.rate(done, unit)
        counted = "" if unit == "bytes" else f" {unit}"  # sizes carry their unit
        numbers = f"{count(done, unit)}/{count(total, unit)}{counted}, {count(rate, unit)}/s"
        if self.live:
            self.bar.update(self.task, completed=done, total=total, numbers=numbers)
        elif self.pace.takes_line():
            self.out.say(f".. {self.label}  {numbers}, eta {_remaining(done, total, rate)}")


def label(step: Step) -> str:
    """Name and short key, in columns."""
    return f"{step.name:<20} {step.key[:12]}"


def count(value: float, unit: str) -> str:
    """A number of units, rounded for display."""
    if unit.startswith("bytes"):
        return size(value)
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _remaining(done: int, total: int, rate: float) -> str:
    """The time that the rest takes at this rate."""
    return duration((total - done) / rate) if done else "unknown"
