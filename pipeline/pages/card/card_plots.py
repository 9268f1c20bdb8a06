"""Pictures of versions as SVG: accuracy with intervals, throughput against speed per user, size."""

from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.version import VersionRecord
from pipeline.pages.card.card_content import in_memory, speeds
from pipeline.pages.card.svg import Axis, around, box, from_zero, line, mark, path, picture, short, text
from pipeline.units import number, size

PANEL = 300
"""Width of an accuracy panel, pixels."""

WIDE, NARROW = 940.0, 300.0
"""Widths of the other pictures: on a desk, and on a phone, where a page shows these instead."""

SHOWN = {
    "kl": ("Token KL divergence, nats", "lower is better", "most"),
    "top1_agreement": ("Top-1 agreement", "higher is better", "least"),
    "perplexity_ratio": ("Perplexity ratio", "lower is better", "most"),
}
"""Limited metric -> its name, its good direction, and which side its limit is on."""


def accuracy(records: Sequence[VersionRecord]) -> list[str]:
    """A panel per limited metric: each version's value with its 95 % interval, against the limit."""
    return [
        _panel(metric, checks)
        for metric in SHOWN
        if any(checks := [_check(record, metric) for record in records])
    ]


def _check(record: VersionRecord, metric: str) -> Mapping[str, Any] | None:
    match = next((check for check in record.checks if check.get("metric") == metric), None)
    # an interval with one open end cannot be drawn
    whole = match is not None and all(match.get(name) is not None for name in ("value", "low", "high"))
    return match if whole else None


def _panel(metric: str, checks: Sequence[Mapping[str, Any] | None]) -> str:
    name, better, side = SHOWN[metric]
    measured = [check for check in checks if check is not None]
    limits = sorted({check["limit"] for check in measured if check.get("limit") is not None})
    ends = [check[end] for check in measured for end in ("low", "high")]
    axis = around([*ends, *limits], 12, PANEL - 12)
    bottom = 58 + 40 * len(checks)
    shapes = [text(12, 16, name, "strong"), text(12, 32, better, "faint")]
    # versions with different limits share no line
    if len(limits) == 1:
        shapes += _limit(axis, limits[0], side, bottom)
    shapes += _ticks_below(axis, bottom)
    for series, check in enumerate(checks):
        if check is not None:
            shapes += _interval(axis, check, 68 + 40 * series, series)
    values = "; ".join(f"{number(c['value'])} ({number(c['low'])} to {number(c['high'])})" for c in measured)
    limit = f", limit {number(limits[0])}" if len(limits) == 1 else ""
    return picture(PANEL, bottom + 30, f"{name}: {values}{limit}", shapes)


def _limit(axis: Axis, limit: float, side: str, bottom: float) -> list[str]:
    """The limit's line, its number, and a shade over what is beyond it."""
    x = axis.at(limit)
    left, right = (x, axis.end) if side == "most" else (axis.start, x)
    return [
        box(left, 40, right - left, bottom - 40, "beyond"),
        line((x, 40), (x, bottom), "limit"),
        text(x + (-5 if side == "most" else 5), 50, f"limit {short(limit)}", "bad",
             "end" if side == "most" else "start"),
    ]  # fmt: skip


def _ticks_below(axis: Axis, bottom: float) -> list[str]:
    shapes = [line((axis.start, bottom), (axis.end, bottom), "axis")]
    for value in axis.ticks():
        x = axis.at(value)
        shapes += [
            line((x, bottom), (x, bottom + 4), "axis"),
            text(x, bottom + 18, short(value), "", "middle"),
        ]
    return shapes


def _interval(axis: Axis, check: Mapping[str, Any], y: float, series: int) -> list[str]:
    low, high, x = (axis.at(check[end]) for end in ("low", "high", "value"))
    return [
        line((low, y), (high, y), f"interval s{series}"),
        *(line((end, y - 5), (end, y + 5), f"interval s{series}") for end in (low, high)),
        mark(x, y, series),
        # kept inside the panel, where a mark at its edge would have its number cut
        text(min(max(x, 40), PANEL - 40), y + 20, number(check["value"]), "", "middle"),
    ]


def throughput(records: Sequence[VersionRecord], width: float = WIDE) -> str:
    """Tokens/s of all users against those that one sees, a point per batch; empty where none is known."""
    lines = [
        [row for row in speeds(record) if {"tokens_per_s", "tokens_per_s_per_user"} <= row.keys()]
        for record in records
    ]
    rows = [row for points in lines for row in points]
    if not rows:
        return ""
    height, left, bottom = 300.0, 64.0, 250.0
    # room at the right for the label of the last point
    x = from_zero([row["tokens_per_s_per_user"] for row in rows], left, width - 70)
    # pixels count downwards: zero is at the larger one
    y = from_zero([row["tokens_per_s"] for row in rows], bottom, 24)
    shapes = _grid(x, y)
    for series, points in enumerate(lines):
        places = [(x.at(row["tokens_per_s_per_user"]), y.at(row["tokens_per_s"])) for row in points]
        shapes.append(path(places, f"curve s{series}"))
        for (px, py), row in zip(places, points, strict=True):
            shapes += [mark(px, py, series), text(px + 10, py - 8, f"batch {row['batch_size']:.0f}")]
    shapes += [
        text((left + width - 20) / 2, height - 8, "output tokens/s that each user sees", "faint", "middle"),
        text(left - 50, 14, "output tokens/s, all users", "faint"),
    ]
    values = "; ".join(
        f"batch {row['batch_size']:.0f}: {number(row['tokens_per_s'])} tokens/s" for row in rows
    )
    return picture(width, height, f"Throughput against speed per user: {values}", shapes)


def _grid(x: Axis, y: Axis) -> list[str]:
    shapes = []
    for value in y.ticks():
        shapes += [
            line((x.start, y.at(value)), (x.end, y.at(value)), "grid"),
            text(x.start - 8, y.at(value) + 4, short(value), "", "end"),
        ]
    for value in x.ticks(6):
        shapes += [
            line((x.at(value), y.start), (x.at(value), y.end), "grid"),
            text(x.at(value), y.start + 18, short(value), "", "middle"),
        ]
    return [*shapes, line((x.start, y.start), (x.end, y.start), "axis")]


def bars(rows: Sequence[tuple[str, int, int]], width: float = WIDE) -> str:
    """Horizontal bars: label, bytes, and series; empty where there is nothing to compare."""
    if not rows:
        return ""
    left = 172.0 if width == WIDE else 140.0
    longest = max(num_bytes for _, num_bytes, _ in rows) or 1  # `or`: all may be empty
    shapes = []
    for index, (label, num_bytes, series) in enumerate(rows):
        y, length = 8.0 + 30 * index, (width - left - 90) * num_bytes / longest
        shapes += [
            text(left - 10, y + 15, label, "", "end"),
            box(left, y, length, 20, f"bar s{series}"),
            text(left + length + 8, y + 15, size(num_bytes), "strong"),
        ]
    values = "; ".join(f"{label} {size(num_bytes)}" for label, num_bytes, _ in rows)
    return picture(width, 12 + 30 * len(rows), f"Size: {values}", shapes)


def memory(record: VersionRecord, width: float = WIDE) -> str:
    """A bar per rank: weights, and the KV cache after them."""
    rows = in_memory(record)
    if not rows:
        return ""
    narrow = width < WIDE
    left, room = (60.0, 72.0) if narrow else (172.0, 260.0)
    # of all ranks, so that their bars can be compared
    longest = max(weights + cache for _, weights, cache in rows) or 1
    scale = (width - left - room) / longest
    shapes = []
    for index, (label, weights, cache) in enumerate(rows):
        y = 8.0 + 30 * index
        label_text = f"{size(weights)} weights" + (f" + {size(cache)} KV cache" if cache else "")
        label_text = size(weights + cache) if narrow else label_text
        shapes += [
            text(left - 10, y + 15, label, "", "end"),
            box(left, y, scale * weights, 20, "bar s0"),
            box(left + scale * weights, y, scale * cache, 20, "bar cache"),
            text(left + scale * (weights + cache) + 8, y + 15, label_text),
        ]
    whole = "; ".join(f"{label}: {size(weights + cache)}" for label, weights, cache in rows)
    return picture(width, 12 + 30 * len(rows), f"Memory per rank: {whole}", shapes)
