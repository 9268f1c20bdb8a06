"""What the ranks of an engine can be asked to do; each function runs on every rank at once.

Every rank sees the same tokens. The last stage picks the next ones and tells the stages before it.
Arrays cross the process boundary as NumPy's: they are copied, so that no memory outlives a rank that dies.
"""

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engines.aoti.aoti_worker import Rank

Event = Callable[[Any], None]
Array = npt.NDArray[Any]

LOGITS_BYTES = 256 << 20
"""Most memory that the logits of one pass may take; longer prompts run in several."""


def score(
    rank: Rank, on_event: Event, tokens: Array, targets: Array, indices: Array
) -> dict[str, Array] | None:
    """Scores a batch.

    `tokens` (B, T), `targets` (B, T) and `indices` (B, T, K) int64; gives float32 log-probabilities of the
    targets (B, T) and of the indices (B, T, K), and the most likely token `top1` (B, T).
    """
    parts = []
    # Only what is asked for outlives a chunk, whose logits take up to LOGITS_BYTES.
    for chunk, out in _prefill(rank, torch.from_numpy(tokens)):
        logprobs = out.log_softmax(-1)
        parts.append({
            "targets": logprobs.gather(-1, torch.from_numpy(targets)[:, chunk].unsqueeze(-1)).squeeze(-1),
            "indices": logprobs.gather(-1, torch.from_numpy(indices)[:, chunk]),
            "top1": logprobs.argmax(-1),
        })  # fmt: skip
    return (
        {name: torch.cat([part[name] for part in parts], 1).numpy() for name in parts[0]} if parts else None
    )


def logits(rank: Rank, on_event: Event, tokens: Array) -> Array | None:
    """Returns logits (B, T, V) float32 of a batch of tokens (B, T)."""
    parts = [out for _, out in _prefill(rank, torch.from_numpy(tokens))]
    return torch.cat(parts, 1).numpy() if parts else None


def _prefill(rank: Rank, tokens: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs prompts (B, T) in chunks whose logits fit; yields each chunk and its logits where they end up."""
    batch, time_ = tokens.shape
    step = max(1, LOGITS_BYTES // (4 * batch * rank.place.arch.vocab_size))  # float32 logits
    for start in range(0, time_, step):
        chunk = slice(start, min(start + step, time_))
        part = tokens[:, chunk].contiguous()
        positions = torch.arange(chunk.start, chunk.stop).repeat(batch, 1)
        out = rank.step(part, positions, torch.arange(part.numel()))
        # Other ranks of the last stage have the same logits; they run every step and answer nothing.
        if out is not None and rank.place.leads:
            yield chunk, out.view(*part.shape, -1)


def generate(
    rank: Rank,
    on_event: Event,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Mapping[str, Any],
) -> list[list[int]] | None:
    """Continues prompts; streams the new token of each request, and gives all of them at the end.

    `sampling` holds `temperature` (0: most likely token), `seed` and `stop` (token ids that end a request).
    """
    decoder = Decoder(rank, prompts, sampling)
    # Every rank saw the same tokens and stops at the same step: no message says so.
    while decoder.num_new < max_new_tokens and not decoder.finished:
        token = decoder.advance()
        if rank.place.leads:
            on_event(token)
    return decoder.texts if rank.place.leads else None


class Decoder:
    """A batch of requests being continued."""

    def __init__(self, rank: Rank, prompts: Sequence[Sequence[int]], sampling: Mapping[str, Any]) -> None:
        self.rank, self.temperature, self.stop = rank, sampling["temperature"], set(sampling["stop"])
        self.random = torch.Generator().manual_seed(sampling["seed"])
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.texts: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.num_new = 0
        self.tokens, self.positions = _padded(prompts, rank.limits.max_seq_len)
        # Where each prompt's last token is, counted through the padded batch.
        self.rows = torch.arange(len(prompts)) * self.tokens.shape[1] + self.lengths - 1

    @property
    def finished(self) -> bool:
        """Every request met a stop token or the end of the cache."""
        return all(self.ended)

    def advance(self) -> list[int | None]:
        """Runs one step; gives each request's new token, None for one that has ended."""
        chosen = self._choose(self.rank.step(self.tokens, self.positions, self.rows))
        new: list[int | None] = []
        for index, token in enumerate(chosen.tolist()):
            new.append(None if self.ended[index] else token)
            if not self.ended[index]:
                self.texts[index].append(token)
            # Prompt and answer together have reached the end of the cache.
            full = int(self.lengths[index]) + self.num_new + 1 >= self.rank.limits.max_seq_len
            self.ended[index] |= token in self.stop or full
        self.tokens = chosen.unsqueeze(1)
        ended = torch.tensor(self.ended)
        # Ended requests stay in the batch as padding, so that rows keep their requests.
        positions = torch.where(ended, self.rank.limits.max_seq_len, self.lengths + self.num_new)
        self.positions, self.rows = positions.unsqueeze(1), torch.arange(len(chosen))
        self.num_new += 1
        return new

    def _choose(self, logits: Tensor | None) -> Tensor:
        """Picks the next tokens (B,) on the last stage, which sends them to the others."""
        # Room for the leader's choice on stages that compute no logits.
        chosen = torch.zeros(len(self.texts), dtype=torch.int64)
        if logits is not None:
            chosen = logits.argmax(-1)
            if self.temperature > 0:
                weights = (logits / self.temperature).softmax(-1)
                # Ranks of the last stage draw alike: same logits, and generators of the same seed.
                chosen = torch.multinomial(weights, 1, generator=self.random).squeeze(1)
        return self.rank.share(chosen)


def _padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Returns tokens and positions (B, T) of prompts; `padding` is the position of what fills them up."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros((len(prompts), longest), dtype=torch.int64)
    positions = torch.full_like(tokens, padding)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
        positions[row, : len(prompt)] = torch.arange(len(prompt))
    return tokens, positions


def measure(rank: Rank, on_event: Event, prompts: Sequence[Sequence[int]], new_tokens: int) -> dict[str, Any]:
    """Times one greedy run: seconds to the first token and between tokens; peak bytes of the rank."""
    # No stop tokens: every run makes the same number of steps.
    decoder = Decoder(rank, prompts, {"temperature": 0.0, "seed": 0, "stop": ()})
    marks = [time.perf_counter()]
    for _ in range(new_tokens):
        decoder.advance()
        marks.append(time.perf_counter())
    gaps = [after - before for before, after in itertools.pairwise(marks)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # from KiB
    return {"ttft_s": gaps[0], "itl_s": gaps[1:], "total_s": marks[-1] - marks[0], "peak_bytes": peak}


CALLS: Mapping[str, Callable[..., Any]] = {
    "score": score, "logits": logits, "generate": generate, "measure": measure,
}  # fmt: skip
