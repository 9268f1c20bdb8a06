"""Sizes of an engine that follow from what it will serve; pure numbers."""

from recipes.schema import Traffic

MAX_TOKENS = 32768
"""Tokens per iteration, at most, where we choose (TensorRT-LLM 0.16, `bench/build/tuning.py`)."""

STEPS = ((4096, 256), (8192, 512), (MAX_TOKENS, 1024))
"""Below each number of tokens, what they are rounded up to a multiple of (same source)."""

MIN_TOKENS = 2048
"""Tokens per iteration, at least, where we choose (same source)."""

DEFAULT_TOKENS = 8192
"""Tokens per iteration without `traffic`: the command's own default since 0.11."""


def longest_prompt(traffic: Traffic | None, max_seq_len: int) -> int:
    """Tokens of the longest prompt; without `traffic`, any prompt that fits."""
    if traffic is None:
        return max_seq_len
    if traffic.max_input_tokens is not None:
        return min(traffic.max_input_tokens, max_seq_len)
    # Prompts may be longer than usual as long as a usual answer fits behind them.
    return max(traffic.input_tokens, max_seq_len - traffic.output_tokens)


def requests(traffic: Traffic, max_batch_size: int) -> int:
    """Requests that are usually under way at once."""
    return min(traffic.concurrency or max_batch_size, max_batch_size)


def steady_tokens(traffic: Traffic, max_batch_size: int) -> int:
    """Tokens of one iteration when requests come as fast as they leave.

    Each request generates one token per iteration, and is replaced after `output_tokens` of them by one that
    brings `input_tokens`: per request 1 + input / output.
    """
    share = 1 + traffic.input_tokens / traffic.output_tokens
    return min(round(requests(traffic, max_batch_size) * share), MAX_TOKENS)


def max_tokens(traffic: Traffic | None, max_batch_size: int) -> int:
    """Tokens that one iteration has to have room for."""
    if traffic is None:
        return DEFAULT_TOKENS
    tokens = max(steady_tokens(traffic, max_batch_size), MIN_TOKENS)
    # At MAX_TOKENS itself no bound is above.
    step = next((step for below, step in STEPS if tokens < below), 1024)
    return -(-tokens // step) * step


def usual_tokens(traffic: Traffic, max_batch_size: int) -> int:
    """Tokens of the iteration that kernels are chosen for: one per request where latency is what matters."""
    if traffic.goal == "latency":
        return requests(traffic, max_batch_size)
    return steady_tokens(traffic, max_batch_size)


def problems(traffic: Traffic | None, max_batch_size: int, max_seq_len: int) -> list[str]:
    """What of `traffic` the engine's limits do not serve, each with the field to change."""
    if traffic is None:
        return []
    lines = []
    longest = (traffic.max_input_tokens or traffic.input_tokens) + 1  # and one generated token
    if max(longest, traffic.input_tokens + traffic.output_tokens) > max_seq_len:
        lines.append(
            f"engine.max_seq_len: {max_seq_len} tokens do not hold what traffic says: prompts of up to "
            f"{longest - 1}, and {traffic.input_tokens} with an answer of {traffic.output_tokens}; "
            f"raise it to {max(longest, traffic.input_tokens + traffic.output_tokens)}"
        )
    if traffic.concurrency is not None and traffic.concurrency > max_batch_size:
        lines.append(
            f"engine.max_batch_size: {max_batch_size} requests at once are fewer than traffic.concurrency "
            f"{traffic.concurrency}; raise the one or lower the other"
        )
    return lines
