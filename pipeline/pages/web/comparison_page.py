"""A comparison as the rows of a page; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.finding.comparison import Comparison, Measured, Setting
from artifacts.version import Metric
from pipeline.pages.card.card_words import NONE, number, size

VERDICTS: Mapping[str, str] = {"noise": "within noise", "unsure": "not comparable"}
"""Judgements whose own word would not do on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a comparison."""

    what: str
    a: str
    b: str
    verdict: str
    """`better`, `worse`, `same`, `within noise`, `not comparable` or `differs`."""
    by: str = ""
    """The change as a share."""
    why: str = ""
    """What the verdict rests on."""


def sections(comparison: Comparison) -> dict[str, list[Row]]:
    """Title -> rows, figures before settings: what people look for comes first."""
    found = {
        title: [_measured(one) if isinstance(one, Measured) else _setting(one) for one in rows]
        for title, rows in comparison.sections
    }
    first = ("accuracy", "speed", "size")
    return {title: found[title] for title in (*first, *(rest for rest in found if rest not in first))}


def _measured(one: Measured) -> Row:
    figure, _, batch = one.name.partition("@")
    before, after = one.before.value, one.after.value
    return Row(
        what=f"{one.words}, batch {batch}" if batch else one.words,
        a=_value(figure, one.before),
        b=_value(figure, one.after),
        verdict=VERDICTS.get(one.judgement, one.judgement),
        by=_share(before, after),
        why=one.why,
    )


def _share(before: float, after: float) -> str:
    """The change as a share; empty where it rounds to nothing."""
    said = f"{after / before - 1:+.0%}" if before > 0 else ""
    return "" if said in ("+0%", "-0%") else said


def _value(figure: str, metric: Metric) -> str:
    if figure.endswith("_bytes"):
        return size(metric.value)
    interval = "" if metric.low is None else f" ({number(metric.low)} to {number(metric.high)})"
    return f"{number(metric.value)}{interval}"


def _setting(one: Setting) -> Row:
    return Row(what=one.place, a=_shown(one.before), b=_shown(one.after), verdict="differs")


def _shown(value: Any) -> str:
    return NONE if value in (None, "") else str(value)
