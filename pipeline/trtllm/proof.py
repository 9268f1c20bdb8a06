"""The proof that a built engine loads and answers: what it generates is what it scores as most likely."""

from typing import Any

import torch

from pipeline.backend.loaded_engine import LoadedEngine, Sampling
from pipeline.errors import BuildFailed

NEW_TOKENS = 8
PROMPT_TOKENS = 8
AGREE = 0.5
"""Least share of generated tokens that scoring calls the most likely: prefill and decode round differently,
so that a near tie may fall either way, while a wrong engine agrees by chance, one in a vocabulary."""


def prove(engine: LoadedEngine, vocab_size: int, max_seq_len: int) -> dict[str, Any]:
    """Generates from a fixed prompt and scores the same tokens; BuildFailed unless the two agree."""
    prompt = [(number * 31 + 1) % vocab_size for number in range(min(PROMPT_TOKENS, max_seq_len // 2))]
    count = min(NEW_TOKENS, max_seq_len - len(prompt) - 1)
    (generated,) = engine.generate([prompt], count, Sampling(), lambda tokens: None)
    if len(generated) != count or any(not 0 <= token < vocab_size for token in generated):
        raise BuildFailed(f"the engine loads, but answers {count} tokens of a prompt with {generated}")
    whole = torch.tensor([prompt + generated])
    tokens, targets = whole[:, :-1], whole[:, 1:]
    (scores,) = engine.score(tokens, targets, targets.unsqueeze(-1))
    if not torch.isfinite(scores.targets).all():
        raise BuildFailed("the engine loads, but its log-probabilities are not finite")
    # A position scores the token after it: the prompt's last one, the first that was generated.
    likely = scores.top1[0, len(prompt) - 1 :].tolist()
    agree = sum(expected == token for expected, token in zip(likely, generated, strict=True)) / count
    if agree < AGREE:
        raise BuildFailed(
            f"the engine loads, but generates {generated} where it scores {likely} as most likely; "
            "its weights or its positions are wrong"
        )
    return {"prompt": prompt, "tokens": generated, "agreement": agree}
