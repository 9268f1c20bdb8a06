"""One version as lists show it; pure."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from artifacts.version import VersionRecord

FIGURES = (
    "perplexity_ratio", "kl", "top1_agreement", "tokens_per_s", "ttft_ms_p95", "itl_ms_p95", "size_bytes",
)  # fmt: skip
"""Metrics that lists show."""


Named = tuple[str, int]
"""Name and number of a version."""

NO_FIGURES: Mapping[str, float] = MappingProxyType({})


class Listed(NamedTuple):
    """A version without recipe, lineage and checks, which `Registry.resolve` reads.

    A tuple, because a search makes one of each version: they cost a third of a frozen dataclass.
    """

    name: str
    number: int
    engine_key: str
    verdict: str
    origin: str
    model: str
    facts: Mapping[str, Any]
    """One object for all versions with these facts."""
    collected: str | None
    """When gc took the bytes, ISO 8601; None while they are there."""
    published: str
    """ISO 8601, UTC."""
    aliases: tuple[str, ...] = ()
    figures: Mapping[str, float] = NO_FIGURES
    """Values of `FIGURES` and of what was asked for, as far as they were measured; of a version that a
    search dropped, only of what was asked for."""

    @property
    def reference(self) -> str:
        """`NAME:NUMBER`."""
        return f"{self.name}:{self.number}"

    @property
    def published_at(self) -> datetime:
        """UTC."""
        return datetime.fromisoformat(self.published)

    def metric(self, name: str) -> float | None:
        """Value of a metric in `figures`; None where it is not there."""
        return self.figures.get(name)


def taken(record: VersionRecord | Listed) -> str | None:
    """When gc took the files; None while they are there."""
    collected_at = record.collected if isinstance(record, Listed) else record.collected_at
    return None if collected_at is None else f"gc took its files on {str(collected_at)[:10]}"
