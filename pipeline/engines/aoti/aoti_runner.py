"""Runs an engine directory: scores, generates and measures; for use in a child process, it imports torch."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.backend.loaded_engine import Sampling
from pipeline.engines.aoti.aoti_worker import Rank
from pipeline.engines.aoti.calls import CALLS
from pipeline.engines.aoti.group import Ranks
from pipeline.errors import SourceError


class Caller(Protocol):
    """Runs a function of `calls` on every rank."""

    def call(self, name: str, on_event: Callable[[Any], None] = ..., **params: Any) -> list[Any]:
        """Returns each rank's result."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the engine says about given tokens; float32 natural logarithms."""

    targets: Tensor
    """Log-probability of each target: (B, T)."""
    indices: Tensor
    """Log-probabilities of the tokens asked about: (B, T, K)."""
    top1: Tensor
    """Most likely next token: (B, T) int64."""


class Engine:
    """A loaded engine; all its ranks are running."""

    def __init__(self, directory: Path, ranks: Caller) -> None:
        self.about: dict[str, Any] = json.loads((directory / "engine.json").read_text())
        self.ranks = ranks
        self.leader = self.about["tp"] * (self.about["pp"] - 1)
        """First rank of the last stage: it has the results."""

    def score(self, tokens: Tensor, targets: Tensor, indices: Tensor) -> Iterator[Scores]:
        """Scores sequences (S, T) batch by batch; `targets` (S, T) and `indices` (S, T, K), all int64."""
        # Batches are split below, so only the length can exceed what was built.
        self._check(1, tokens.shape[1])
        batches = (torch.split(each, self.about["max_batch_size"]) for each in (tokens, targets, indices))
        for part in zip(*batches, strict=True):
            arrays = dict(zip(("tokens", "targets", "indices"), (each.numpy() for each in part), strict=True))
            answers = self.ranks.call("score", **arrays)[self.leader]
            yield Scores(**{name: torch.from_numpy(array) for name, array in answers.items()})

    def logits(self, tokens: Tensor) -> Tensor:
        """Returns logits (B, T, V) float32 of tokens (B, T) int64."""
        self._check(*tokens.shape)
        return torch.from_numpy(self.ranks.call("logits", tokens=tokens.numpy())[self.leader])

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 a frozen value
        on_tokens: Callable[[list[int | None]], None] = lambda tokens: None,
    ) -> list[list[int]]:
        """Continues prompts; `on_tokens` hears each step's token of every request, None once it ended."""
        self._check(len(prompts), max(len(prompt) for prompt in prompts))
        params = {"prompts": prompts, "max_new_tokens": max_new_tokens, "sampling": asdict(sampling)}
        texts: list[list[int]] = self.ranks.call("generate", on_tokens, **params)[self.leader]
        return texts

    def measure(self, batch: int, prompt_len: int, new_tokens: int, repeats: int) -> dict[str, float]:
        """Times greedy decoding of random prompts, after one run that is not counted."""
        self._check(batch, prompt_len + new_tokens)
        # The same prompts at every measurement, so that two engines can be compared.
        random = torch.Generator().manual_seed(0)
        prompts = torch.randint(0, self.about["vocab_size"], (batch, prompt_len), generator=random).tolist()
        runs = [
            self.ranks.call("measure", prompts=prompts, new_tokens=new_tokens) for _ in range(repeats + 1)
        ]
        timed = [run[self.leader] for run in runs[1:]]
        # A process's peak never falls, so the last run's figures cover the runs before it.
        peak = sum(rank["peak_bytes"] for rank in runs[-1])
        return {**_speed(timed, batch, new_tokens), "peak_memory_bytes": peak}

    def _check(self, batch: int, length: int) -> None:
        for name, size in (("max_batch_size", batch), ("max_seq_len", length)):
            if size > self.about[name]:
                raise SourceError(f"{name}: {size} is asked for, the engine is built for {self.about[name]}")


def _speed(runs: Sequence[Mapping[str, Any]], batch: int, new_tokens: int) -> dict[str, float]:
    """Sums up timed runs: milliseconds to the first token and between tokens, tokens per second."""
    first = [1000 * run["ttft_s"] for run in runs]
    gaps = [1000 * gap for run in runs for gap in run["itl_s"]]
    rate = median(new_tokens / run["total_s"] for run in runs)
    # One new token leaves no gap to measure; the whole run is then the only rate there is.
    decode = 1000 / median(gaps) if gaps else rate
    return {
        "ttft_ms_p50": percentile(first, 50),
        "ttft_ms_p95": percentile(first, 95),
        "itl_ms_p50": percentile(gaps, 50) if gaps else 0.0,
        "itl_ms_p95": percentile(gaps, 95) if gaps else 0.0,
        "tokens_per_s": batch * rate,
        "tokens_per_s_per_user": decode,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the linearly interpolated percentile."""
    return float(np.percentile(values, percent))


class Local:
    """The only rank of an engine, in this process."""

    def __init__(self, directory: Path) -> None:
        self.rank = Rank(directory, 0, None)

    def call(
        self, name: str, on_event: Callable[[Any], None] = lambda event: None, **params: Any
    ) -> list[Any]:
        """Runs a function of `calls`."""
        return [CALLS[name](self.rank, on_event, **params)]


@contextmanager
def load(directory: Path) -> Iterator[Engine]:
    """Loads an engine and starts its ranks; they end with the block."""
    about = json.loads((directory / "engine.json").read_text())
    # One rank has no peers, so it needs neither a process nor a group of its own.
    if about["world_size"] == 1:
        yield Engine(directory, Local(directory))
        return
    with Ranks(directory, about["world_size"]) as ranks:
        yield Engine(directory, ranks)
