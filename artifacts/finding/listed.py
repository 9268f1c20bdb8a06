"""A version as lists and searches read it; pure."""

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

    A tuple, because a search creates one per version: it costs a third of a frozen dataclass.
    """

    name: str
    number: int
    engine_key: str
    verdict: str
    origin: str
    model: str
    facts: Mapping[str, Any]
    """Shared by all versions with these facts."""
    collected: str | None
    """When gc removed the files, ISO 8601; None while they exist."""
    published: str
    """ISO 8601, UTC."""
    aliases: tuple[str, ...] = ()
    figures: Mapping[str, float] = NO_FIGURES
    """Measured values of `FIGURES` and of the metrics in the criteria; for a version that a search dropped,
    only those in the criteria."""

    @property
    def reference(self) -> str:
        """`NAME:NUMBER`."""
        return f"{self.name}:{self.number}"

    @property
    def published_at(self) -> datetime:
        """UTC."""
        return datetime.fromisoformat(self.published)

    def metric(self, name: str) -> float | None:
        """Value of a metric in `figures`; None where it is missing."""
        return self.figures.get(name)


def collected_note(record: VersionRecord | Listed) -> str | None:
    """The note that gc removed the version's files; None while they exist."""
    collected_at = record.collected if isinstance(record, Listed) else record.collected_at
    return None if collected_at is None else f"gc removed its files on {str(collected_at)[:10]}"
