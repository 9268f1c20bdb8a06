"""An engine that a builder wrote without Enginery, as it is recognised and described."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignEngine:
    """Facts from the builder's own files."""

    facts: Mapping[str, Any]
    """As of a version that was built here, without GPUs and sizes."""
    weight_files: Sequence[str]
    """Names of the files that hold weights."""
    model: str
    """Architecture; empty where no file names it."""


class ForeignFormat(Protocol):
    """One builder's way to write engines."""

    def recognise(self, names: Collection[str]) -> bool:
        """Whether a directory with these files holds such an engine."""

    def describe(self, directory: Path, names: Collection[str]) -> ForeignEngine:
        """Reads the description; ExchangeRefused where it is incomplete."""
