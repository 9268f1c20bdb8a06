"""The runner that evaluation, measurement and generation call, for engine directories of this backend."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.divergence import Candidate
from pipeline.engines.aoti.runner import Sampling, load
from pipeline.runner import Progress, Timing


def score(engine: Path, tokens: npt.NDArray[Any], ids: npt.NDArray[Any], progress: Progress) -> Candidate:
    """Scores tokens [S, T], with log-probabilities of the token ids [S, T-1, K] at each position."""
    found = torch.from_numpy(tokens).long()
    given, targets = found[:, :-1], found[:, 1:]
    parts = []
    with load(engine) as loaded:
        for part in loaded.score(given, targets, torch.from_numpy(ids).long()):
            parts.append(part)
            progress(sum(len(one.targets) for one in parts) * given.shape[1], given.numel(), "tokens")
    return Candidate(
        target_logprob=np.concatenate([part.targets.numpy() for part in parts]),
        top_logprob=np.concatenate([part.indices.numpy() for part in parts]),
        best_ids=np.concatenate([part.top1.numpy() for part in parts]),
    )


def measure(
    engine: Path, params: Mapping[str, Any], progress: Progress
) -> Mapping[int, tuple[Sequence[Timing], int]]:
    """Times `repeats` generations per batch size, after one that is not counted."""
    sizes, repeats = params["batch_sizes"], params["repeats"]
    found = {}
    with load(engine) as loaded:
        for number, batch in enumerate(sizes):
            timings, peak = loaded.measure(batch, params["prompt_len"], params["new_tokens"], repeats)
            found[batch] = ([Timing(ttft_s=one["ttft_s"], itl_s=one["itl_s"]) for one in timings], peak)
            progress(number + 1, len(sizes), "batch sizes")
    return found


def generate(
    engine: Path, prompt: Sequence[int], params: Mapping[str, Any], on_token: Callable[[int], None]
) -> list[int]:
    """Continues one prompt; `on_token` hears each token as it is chosen."""
    sampling = Sampling(params["temperature"], params["seed"], tuple(params["stop"]))

    def hear(tokens: list[int | None]) -> None:
        if tokens[0] is not None:
            on_token(tokens[0])

    with load(engine) as loaded:
        return loaded.generate([prompt], params["max_new_tokens"], sampling, hear)[0]
