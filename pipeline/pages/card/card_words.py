"""Numbers and moments as people say them."""

from datetime import UTC, datetime, timedelta

from pipeline.units import size

__all__ = ["NONE", "ago", "moment", "number", "size"]

NONE = "\N{EN DASH}"
"""Stands where there is no value."""


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
