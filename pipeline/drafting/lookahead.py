"""Sizes of lookahead decoding that an engine has room for; pure.

An engine is built for a number of draft tokens, and loaded with three sizes that need no more: without them
TensorRT-LLM refuses the first request ("Lookahead decoding config must be provided").
"""


def draft_tokens(window: int, ngram: int, verification: int) -> int:
    """Draft tokens of one step (`LookaheadDecodingConfig::calculateSpeculativeResource` of TensorRT-LLM)."""
    return (window + verification - 1) * (ngram - 1) + max(0, ngram - 2)


def sizes(max_draft_len: int) -> tuple[int, int, int]:
    """Window, n-gram and verification set: the largest equal ones, as NVIDIA's examples choose them.

    Less than three tokens have room for none: then one window of 2-grams.
    """
    best = (1, 2, max_draft_len)
    size = 2
    while draft_tokens(size, size, size) <= max_draft_len:
        best = (size, size, size)
        size += 1
    return best
