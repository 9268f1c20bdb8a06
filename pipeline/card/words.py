"""Numbers, moments and events as people say them."""

from datetime import UTC, datetime, timedelta

from artifacts.version import Event
from pipeline.output import size

__all__ = ["NONE", "ago", "moment", "number", "said", "size"]

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


def said(event: Event) -> str:
    """An event in words."""
    detail = dict(event.detail)
    alias, was, now = detail.get("alias"), detail.get("was"), detail.get("now")
    if event.kind == "published":
        return f"version {detail.get('number')} published, verdict {detail.get('verdict')}"
    if event.kind in ("alias_moved", "rolled_back") and alias is not None:
        how = "rolled back" if event.kind == "rolled_back" else "moved"
        return f"@{alias} {how} from version {was} to {now}" if was else f"@{alias} set to version {now}"
    rest = ", ".join(f"{name} {value}" for name, value in detail.items() if value not in (None, "", [], {}))
    kind = event.kind.replace("_", " ")
    return f"{kind}: {rest}" if rest else kind
