"""Numbers, moments and events as people say them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from artifacts.version import Event
from pipeline.output import size

__all__ = ["NONE", "ago", "moment", "number", "said", "size"]

Detail = Mapping[str, Any]

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
    detail = event.detail
    if event.kind in SAID and (event.kind == "published" or "alias" in detail):
        return SAID[event.kind](detail)
    rest = ", ".join(f"{name} {value}" for name, value in detail.items() if value not in (None, "", [], {}))
    kind = event.kind.replace("_", " ")
    return f"{kind}: {rest}" if rest else kind


def _moved(detail: Detail) -> str:
    """A promotion; rules that were waived for it are named."""
    was, waived = detail.get("was"), ", ".join(one["rule"] for one in detail.get("waived", ()))
    how = f"moved from version {was} to" if was else "set to version"
    return f"@{detail['alias']} {how} {detail.get('now')}" + (f", waived: {waived}" if waived else "")


def _refused(detail: Detail) -> str:
    broken = "; ".join(f"{one['rule']}: {one['why']}" for one in detail.get("broken", ()))
    return f"@{detail['alias']} refused version {detail.get('number')}" + (f": {broken}" if broken else "")


def _waived(detail: Detail) -> str:
    what = f"waiver of {detail.get('rule')} for version {detail.get('number')} at @{detail['alias']}"
    if detail.get("ended"):
        return f"{what} ended"
    return f"{what} until {str(detail.get('until'))[:16].replace('T', ' ')} UTC: {detail.get('reason')}"


SAID: Mapping[str, Callable[[Detail], str]] = {
    "published": lambda detail: f"version {detail.get('number')} published, verdict {detail.get('verdict')}",
    "alias_moved": _moved,
    "rolled_back": lambda d: f"@{d['alias']} rolled back from version {d.get('was')} to {d.get('now')}",
    "refused": _refused,
    "waived": _waived,
}
"""Kind of event -> its words; the others are said by their details."""
