"""Values of the registry: what is published, what is found, and how both are referred to."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from artifacts.errors import NotFound


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number, with its confidence interval where one was estimated."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high) if x is not None):
            raise ValueError(f"metric {self.name!r} is not finite: {self.value} [{self.low}, {self.high}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What `Registry.publish` makes a version of."""

    name: str
    engine_key: str
    recipe: Mapping[str, Any]
    """The recipe in full."""
    verdict: str
    """Only PASS is published."""
    facts: Mapping[str, Any]
    """What a host needs to load the engine and what it was built for: backend, format, tp, pp, limits."""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """Kind of every step -> key of its artifact."""
    checks: Sequence[Mapping[str, Any]] = ()
    """The gate's comparisons, one by one."""
    metrics: Sequence[Metric] = ()
    alias: str | None = None
    """Alias moved to the new version, wherever it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One published version."""

    name: str
    number: int
    """Counts from 1, without gaps, per name."""
    engine_key: str
    recipe: dict[str, Any]
    verdict: str
    facts: dict[str, Any]
    lineage: dict[str, str]
    checks: list[dict[str, Any]]
    metrics: tuple[Metric, ...]
    aliases: tuple[str, ...]
    """Aliases that pointed here when this was read."""
    published_at: datetime
    """UTC."""

    def metric(self, name: str) -> float | None:
        """Value of a metric; None where it was not measured."""
        return next((metric.value for metric in self.metrics if metric.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {**asdict(self), "published_at": self.published_at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the registry's log, which only grows."""

    seq: int
    at: datetime
    name: str
    kind: str
    """`published` or `alias_moved`."""
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """`NAME`, `NAME@ALIAS` or `NAME:NUMBER`, taken apart."""

    name: str
    alias: str | None = None
    number: int | None = None


def parse_reference(text: str) -> Reference:
    """The parts of a reference; anything else is a NotFound that shows the three forms."""
    found = re.fullmatch(r"([^@:\s]+)(?:@([^@:\s]+)|:(\d{1,9}))?", text)
    if found is None:
        raise NotFound(f"{text!r} refers to no version; write NAME, NAME@ALIAS or NAME:NUMBER")
    name, alias, number = found.groups()
    return Reference(name, alias, int(number) if number else None)
