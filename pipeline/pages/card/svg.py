"""The few shapes that plots are drawn with, as SVG text; colours come from the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

LOG_FROM = 20.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """A line of text; what it says is escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def line(start: tuple[float, float], end: tuple[float, float], css: str) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def box(x: float, y: float, width: float, height: float, css: str) -> str:
    """A rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" class="{css}"/>'


def path(points: Iterable[tuple[float, float]], css: str) -> str:
    """A line through points."""
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" class="{css}"/>'


def mark(x: float, y: float, series: int) -> str:
    """A series' mark: a dot for the first, a diamond for the second, so that colour is not all there is."""
    if series % 2 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="mark s{series}"/>'
    corners = f"{x:.1f},{y - 6.5:.1f} {x + 6.5:.1f},{y:.1f} {x:.1f},{y + 6.5:.1f} {x - 6.5:.1f},{y:.1f}"
    return f'<polygon points="{corners}" class="mark s{series}"/>'


def picture(width: float, height: float, title: str, shapes: Iterable[str]) -> str:
    """The whole picture; screen readers read `title`."""
    label = escape(title)
    return (
        f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{label}</title>{''.join(shapes)}</svg>"
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """Values to pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is, in pixels."""
        low, high, position = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (position - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round values along the axis, about `count`."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            marks = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
            return [value for value in marks if self.low <= value <= self.high]
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def from_zero(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis from zero with some room beyond the values; logarithmic where they span very much."""
    high = max(values, default=0.0) or 1.0
    low = min((value for value in values if value > 0), default=high)
    if low > 0 and high / low > LOG_FROM:
        return Axis(low / 1.5, high * 1.5, start, end, log=True)
    return Axis(0.0, high * 1.12, start, end)


def around(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis over the values with some room at both sides."""
    low, high = min(values), max(values)
    room = 0.14 * ((high - low) or abs(high) or 1.0)
    return Axis(low - room, high + room, start, end)


def short(value: float) -> str:
    """A tick's number: as few digits as tell it from its neighbours."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
