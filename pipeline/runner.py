"""What every backend's runner does, and which runner an engine needs; used in child processes only."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from pipeline import engines
from pipeline.divergence import Candidate
from pipeline.errors import SourceError

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One timed generation of a batch."""

    ttft_s: float
    """From the start until every request has its first token."""
    itl_s: Sequence[float]
    """Time of each token after the first, the same for every request of the batch."""


class Runner(Protocol):
    """Module that a backend names as its `runner`."""

    def score(
        self, engine: Path, tokens: npt.NDArray[Any], ids: npt.NDArray[Any], progress: Progress
    ) -> Candidate:
        """Scores tokens [S, T], with log-probabilities of the token ids [S, T-1, K] at each position."""

    def measure(
        self, engine: Path, params: Mapping[str, Any], progress: Progress
    ) -> Mapping[int, tuple[Sequence[Timing], int]]:
        """Times `repeats` generations per batch size -> (timings, peak memory of all ranks in bytes)."""

    def generate(
        self, engine: Path, prompt: Sequence[int], params: Mapping[str, Any], on_token: Callable[[int], None]
    ) -> list[int]:
        """Continues one prompt of token ids; params: max_new_tokens, temperature, seed, stop (token ids)."""


def runner_of(engine: Path) -> Runner:
    """The runner of the backend that built an engine directory; SourceError where there is none."""
    file = engine / "engine.json"
    if not file.is_file():
        raise SourceError(f"{engine} holds no engine (no engine.json); give the output of an engine step")
    backend = engines.backend(json.loads(file.read_text())["backend"])
    return cast("Runner", import_module(backend.runner))
