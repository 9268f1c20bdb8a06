"""One place in the code that a figure counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Hit:
    """A counted place; prints as editors and terminals link it."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def rank_files(hits: Iterable[Hit]) -> list[tuple[str, int]]:
    """Files and their number of hits, most hits first."""
    return sorted(Counter(hit.path for hit in hits).items(), key=lambda entry: (-entry[1], entry[0]))
