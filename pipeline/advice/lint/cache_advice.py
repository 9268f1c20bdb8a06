"""Advice on the KV cache, and on long or shared prompts."""

from pipeline.advice.lint.advice import (
    Advice,
    eight_bit,
    longest_prompt,
    num_tokens,
    off,
    on,
    option,
    sm,
    tensorrt,
)
from pipeline.advice.lint.guide import SOURCE, effect
from pipeline.models.shape import ModelShape
from recipes.schema import Recipe

HOST_CACHE_BYTES = 32 << 30
"""Host memory to start with, per rank."""


def fp8_cache(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Keys and values in FP8 beside FP8 weights."""
    if recipe.engine.backend == "aoti" or recipe.kv_cache != "auto":
        return None
    if not eight_bit(recipe) or sm(recipe) < 89:
        return None
    return Advice(
        id="fp8_cache",
        text="keep keys and values in FP8: twice as many requests at once; some models lose accuracy, so the "
        "gate has to judge it",
        effect=effect("fp8", "fp8_kv"),
        source=SOURCE + "; TensorRT-LLM issues 2309 and 4218 for accuracy",
        change="kv_cache: fp8",
    )


def paged_context(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Prompt attention over the paged cache, which reuse and chunks need."""
    shared = recipe.traffic is not None and recipe.traffic.shared_prefix_tokens > 0
    needed = shared or longest_prompt(recipe) > num_tokens(recipe)
    if not tensorrt(recipe) or on(recipe, "use_paged_context_fmha") or recipe.kv_cache == "int8":
        return None
    if not needed and not off(recipe, "use_paged_context_fmha"):
        return None
    return Advice(
        id="paged_context",
        text="let prompts read the paged cache: shared prefixes and prompts in pieces need it, and its "
        "default depends on the version",
        effect=effect("profiles", "paged_context") + "; 2 % lost at worst",
        source=SOURCE,
        change="engine.options.use_paged_context_fmha: enable",
    )


def chunked_context(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Prompts longer than a pass, in pieces."""
    longest, fits = longest_prompt(recipe), num_tokens(recipe)
    torch = recipe.engine.backend == "trtllm_torch" and not on(recipe, "enable_chunked_prefill")
    large = tensorrt(recipe) and fits > 8192 and longest > 8192
    if not (large or (torch and longest > fits)):
        return None
    return Advice(
        id="chunked_context",
        text=f"process prompts of up to {longest} tokens in pieces"
        + (f" instead of making room for {fits} tokens per pass" if large else f": a pass holds {fits}"),
        effect="128,000 tokens per pass take 39.6 GB of an 8B engine's memory, 8,192 take 2.5 GB",
        source="TensorRT-LLM issue 3636, and the same formula",
        change="engine.options.max_num_tokens: 8192"
        if large
        else "engine.options.enable_chunked_prefill: true",
    )


def block_reuse(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Reuse of shared prefixes switched off in the LLM API."""
    traffic = recipe.traffic
    if recipe.engine.backend != "trtllm_torch" or traffic is None or not traffic.shared_prefix_tokens:
        return None
    if not off(recipe, "kv_cache_config.enable_block_reuse"):
        return None
    return Advice(
        id="block_reuse",
        text=f"keep what requests share: {traffic.shared_prefix_tokens} tokens of each prompt",
        effect=_saved(recipe),
        source="the recipe's traffic",
        change="engine.options.kv_cache_config: {enable_block_reuse: true}",
    )


def host_offload(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """Shared prefixes kept in host memory when the GPU's is full."""
    traffic = recipe.traffic
    if traffic is None or not traffic.shared_prefix_tokens or recipe.engine.backend == "aoti":
        return None
    if option(recipe, "kv_cache_config.host_cache_size"):
        return None
    per_token = (
        2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * (2 if recipe.kv_cache == "auto" else 1)
    )
    held = HOST_CACHE_BYTES * recipe.engine.world_size // per_token
    return Advice(
        id="host_offload",
        text=f"keep evicted blocks in host memory: 32 GiB per rank hold {held:,} tokens of shared prefixes",
        effect=_saved(recipe),
        source="the recipe's traffic",
        change=f"enginery export {recipe.name}@{recipe.publish.alias} --to triton "
        f"--set kv_host_memory_bytes={HOST_CACHE_BYTES}"
        if tensorrt(recipe)
        else f"engine.options.kv_cache_config: {{host_cache_size: {HOST_CACHE_BYTES}}}",
    )


def _saved(recipe: Recipe) -> str:
    """Share of the prompt that a hit does not compute again."""
    traffic = recipe.traffic
    assert traffic is not None
    share = min(1.0, traffic.shared_prefix_tokens / traffic.input_tokens)
    return f"a request that finds its prefix computes {100 * share:.0f} % of its prompt less; not measured"
