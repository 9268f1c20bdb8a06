"""What a loaded engine can do whatever built it, and how it is loaded; used in child processes only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is picked."""

    temperature: float = 0.0
    """0: the most likely token."""
    seed: int = 0
    stop: tuple[int, ...] = ()
    """Token ids that end a request."""


class Scores(Protocol):
    """What an engine says about a batch of sequences; natural logarithms."""

    @property
    def targets(self) -> Tensor:
        """Log-probability of each target, (B, T)."""

    @property
    def indices(self) -> Tensor:
        """Log-probabilities of the tokens asked about, (B, T, K)."""

    @property
    def top1(self) -> Tensor:
        """Most likely next token, (B, T)."""


class LoadedEngine(Protocol):
    """An engine whose ranks are running."""

    def score(self, tokens: Tensor, targets: Tensor, indices: Tensor) -> Iterator[Scores]:
        """Scores sequences batch by batch: tokens and targets (S, T), indices (S, T, K), all int64."""

    def measure(self, batch: int, prompt_len: int, new_tokens: int, repeats: int) -> dict[str, float]:
        """Times greedy decoding of a batch; the figures that `measurement.FIGURES` names."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        on_tokens: Callable[[list[int | None]], None],
    ) -> list[list[int]]:
        """Continues prompts; `on_tokens` hears each step's token of every request, None once it has ended."""


class Runner(Protocol):
    """Module that a backend names as its `runner`."""

    def load(self, directory: Path) -> AbstractContextManager[LoadedEngine]:
        """Loads an engine; its ranks end with the block."""
