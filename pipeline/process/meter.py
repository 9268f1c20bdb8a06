"""Counts work as it is done and reports the sum."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int, str], None]
"""Called with done, total and unit."""


@dataclass(slots=True)
class Meter:
    """A sum that grows towards `total`."""

    progress: Progress
    total: int
    unit: str
    done: int = 0

    def add(self, count: int) -> None:
        """Counts `count` more and reports."""
        self.done += count
        self.progress(self.done, self.total, self.unit)
