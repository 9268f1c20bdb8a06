"""Numbers, seconds, bytes and moments as people read them; pure."""

from datetime import UTC, datetime, timedelta

NONE = "\N{EN DASH}"
"""Stands where there is no value."""


def duration(seconds: float) -> str:
    """Seconds as people say them: `7.3s`, `14m02s`, `2h05m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def size(num_bytes: float) -> str:
    """Bytes as people say them: `8.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def number(value: float | None) -> str:
    """Four significant digits, and thousands apart; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def moment(at: datetime) -> str:
    """`2026-11-21 08:14 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def ago(at: datetime, now: datetime) -> str:
    """`5 minutes ago`, `in 3 days`: one unit, rounded down."""
    gap = abs(now - at)
    for unit, length in (
        ("year", timedelta(days=365)),
        ("month", timedelta(days=30)),
        ("day", timedelta(days=1)),
        ("hour", timedelta(hours=1)),
        ("minute", timedelta(minutes=1)),
    ):
        count = gap // length
        if count:
            words = f"{count} {unit}{'s' if count > 1 else ''}"
            return f"in {words}" if at > now else f"{words} ago"
    return "in a moment" if at > now else "just now"
