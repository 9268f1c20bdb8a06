"""Advice on the KV cache, and on long or shared prompts, for both backends of TensorRT-LLM."""

from pipeline.backend.lint_rule import Advice, eight_bit, option, sm
from pipeline.models.shape import ModelShape
from pipeline.trtllm.tuning_guide import SOURCE, effect
from recipes.schema import Recipe

HOST_CACHE_BYTES = 32 << 30
"""Host memory to start with, per rank."""


def fp8_cache(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Keys and values in FP8 beside FP8 weights."""
    if recipe.kv_cache != "auto" or not eight_bit(recipe) or sm(recipe) < 89:
        return None
    return Advice(
        id="fp8_cache",
        text="keep keys and values in FP8: twice as many requests at once; some models lose accuracy, so the "
        "gate has to judge it",
        effect=effect("fp8", "fp8_kv"),
        source=SOURCE + "; TensorRT-LLM issues 2309 and 4218 for accuracy",
        change="kv_cache: fp8",
    )


def host_offload(recipe: Recipe, shape: ModelShape, change: str) -> Advice | None:
    """Shared prefixes kept in host memory when the GPU's is full, with the `change` that turns it on."""
    traffic = recipe.traffic
    if traffic is None or not traffic.shared_prefix_tokens:
        return None
    if option(recipe, "kv_cache_config.host_cache_size"):
        return None
    per_token = (
        2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * (2 if recipe.kv_cache == "auto" else 1)
    )
    # Each rank keeps its own heads and layers of a token, so the ranks' memories add up.
    tokens = HOST_CACHE_BYTES * recipe.engine.world_size // per_token
    return Advice(
        id="host_offload",
        text=f"keep evicted blocks in host memory: 32 GiB per rank hold {tokens:,} tokens of shared prefixes",
        effect=saved_prompt(recipe),
        source="the recipe's traffic",
        change=change,
    )


def chunked_context(longest: int, instead: str, change: str) -> Advice:
    """Prompts longer than a pass, in pieces; `instead` names the alternative."""
    return Advice(
        id="chunked_context",
        text=f"process prompts of up to {longest} tokens in pieces{instead}",
        effect="128,000 tokens per pass take 39.6 GB of an 8B engine's memory, 8,192 take 2.5 GB",
        source="TensorRT-LLM issue 3636, and the same formula",
        change=change,
    )


def saved_prompt(recipe: Recipe) -> str:
    """The effect of a prefix that is kept: the share of the prompt that is not computed again."""
    traffic = recipe.traffic
    assert traffic is not None
    share = min(1.0, traffic.shared_prefix_tokens / traffic.input_tokens)
    return f"a request that finds its prefix computes {100 * share:.0f} % of its prompt less; not measured"
