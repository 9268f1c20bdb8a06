"""Advice on batch sizes, tokens per pass and proposed tokens, for both backends of TensorRT-LLM."""

from pipeline.backend.lint_rule import Advice, latency, num_tokens, searched
from pipeline.backend.memory_formulas import decoder_bytes
from pipeline.models.shape import ModelShape
from pipeline.trtllm.tuning_guide import SOURCE, effect
from recipes.schema import Recipe

SMALL_BATCH, LARGE_BATCH = 128, 2048
"""Batches at the ends of what the guide measured, where throughput was lost."""

FEW = 16
"""Requests at once up to which a GPU has time left for proposed tokens."""


def batch_for_throughput(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """A batch at the end of what is sensible, when throughput is the goal."""
    batch, traffic = recipe.engine.max_batch_size, recipe.traffic
    wrong = batch < SMALL_BATCH or batch >= LARGE_BATCH
    if traffic is None or traffic.goal != "throughput" or not wrong:
        return None
    if searched(recipe, "max_batch_size"):
        return None
    small = batch < SMALL_BATCH
    return Advice(
        id="batch_for_throughput",
        text=f"try {'larger' if small else 'smaller'} batches than {batch}, in powers of two",
        effect=effect("batch_64", "batch_512") if small else effect("batch_2048", "batch_512"),
        source=SOURCE,
        change="tune.space: {max_batch_size: [64, 128, 256, 512]}",
    )


def batch_for_latency(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """Buffers for many more requests than there will be."""
    traffic, batch = recipe.traffic, recipe.engine.max_batch_size
    if traffic is None or not latency(recipe) or traffic.concurrency is None:
        return None
    if batch < 4 * traffic.concurrency:
        return None
    # Room for twice the requests that come is kept.
    spared = decoder_bytes(batch - 2 * traffic.concurrency, shape.vocab_size) / 1e9
    return Advice(
        id="batch_for_latency",
        text=f"batches of {batch} are built for, {traffic.concurrency} requests come: give the memory to "
        "keys and values",
        effect=f"{spared:.1f} GB per GPU; " + effect("batch_512", "batch_64"),
        source="pipeline/backend/memory_formulas.py; " + SOURCE,
        change=f"engine.max_batch_size: {2 * traffic.concurrency}",
    )


def tokens_per_pass(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Passes of more tokens than helped."""
    if num_tokens(recipe) <= 8192 or searched(recipe, "options.max_num_tokens"):
        return None
    return Advice(
        id="tokens_per_pass",
        text=f"{num_tokens(recipe)} tokens per pass take memory from the KV cache; 2048 to 8192 were enough",
        effect=effect("tokens_16384", "tokens_2048"),
        source=SOURCE,
        change="engine.options.max_num_tokens: 8192",
    )


def speculation(recipe: Recipe, change: str) -> Advice | None:
    """Proposed tokens, where most of the time goes into generating; `change` turns them on."""
    traffic = recipe.traffic
    if traffic is None or recipe.speculative is not None:
        return None
    few = latency(recipe) or (traffic.concurrency or recipe.engine.max_batch_size) <= FEW
    if traffic.output_tokens < traffic.input_tokens or not few:
        return None
    return Advice(
        id="speculation",
        text=f"{traffic.output_tokens} tokens are made per {traffic.input_tokens} read, by few at once: "
        "propose several tokens per step",
        effect="depends on how many proposals are right; not measured",
        source="the recipe's traffic",
        change=change,
    )
