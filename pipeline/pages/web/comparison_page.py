"""A comparison as the rows of a page; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.finding.comparison import Comparison, Measured, Setting
from artifacts.version import Metric
from pipeline.units import NONE, number, size

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
    rows_by_title = {
        title: [
            _measured(difference) if isinstance(difference, Measured) else _setting(difference)
            for difference in rows
        ]
        for title, rows in comparison.sections
    }
    first = ("accuracy", "speed", "size")
    return {
        title: rows_by_title[title]
        for title in (*first, *(rest for rest in rows_by_title if rest not in first))
    }


def _measured(measurement: Measured) -> Row:
    figure, _, batch = measurement.name.partition("@")
    before, after = measurement.before.value, measurement.after.value
    return Row(
        what=f"{measurement.words}, batch {batch}" if batch else measurement.words,
        a=_value(figure, measurement.before),
        b=_value(figure, measurement.after),
        verdict=VERDICTS.get(measurement.judgement, measurement.judgement),
        by=_share(before, after),
        why=measurement.why,
    )


def _share(before: float, after: float) -> str:
    """The change as a share; empty where it rounds to nothing."""
    change = f"{after / before - 1:+.0%}" if before > 0 else ""
    return "" if change in ("+0%", "-0%") else change


def _value(figure: str, metric: Metric) -> str:
    if figure.endswith("_bytes"):
        return size(metric.value)
    interval = "" if metric.low is None else f" ({number(metric.low)} to {number(metric.high)})"
    return f"{number(metric.value)}{interval}"


def _setting(setting: Setting) -> Row:
    return Row(
        what=setting.place, a=_setting_text(setting.before), b=_setting_text(setting.after), verdict="differs"
    )


def _setting_text(value: Any) -> str:
    return NONE if value in (None, "") else str(value)
