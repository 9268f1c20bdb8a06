"""Advice on options of the LLM API."""

from pipeline.backend.lint_rule import Advice, longest_prompt, num_tokens, off, on
from pipeline.models.shape import ModelShape
from pipeline.trtllm import cache_advice, serving_advice
from recipes.schema import Recipe


def chunked_context(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Prompts longer than a pass, in pieces."""
    longest, fits = longest_prompt(recipe), num_tokens(recipe)
    if on(recipe, "enable_chunked_prefill") or longest <= fits:
        return None
    change = "engine.options.enable_chunked_prefill: true"
    return cache_advice.chunked_context(longest, f": a pass holds {fits}", change)


def block_reuse(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Reuse of shared prefixes switched off in the LLM API."""
    traffic = recipe.traffic
    if traffic is None or not traffic.shared_prefix_tokens:
        return None
    if not off(recipe, "kv_cache_config.enable_block_reuse"):
        return None
    return Advice(
        id="block_reuse",
        text=f"keep what requests share: {traffic.shared_prefix_tokens} tokens of each prompt",
        effect=cache_advice.saved_prompt(recipe),
        source="the recipe's traffic",
        change="engine.options.kv_cache_config: {enable_block_reuse: true}",
    )


def host_offload(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """Shared prefixes in host memory, which an option turns on."""
    change = f"engine.options.kv_cache_config: {{host_cache_size: {cache_advice.HOST_CACHE_BYTES}}}"
    return cache_advice.host_offload(recipe, shape, change)


def speculation(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Proposals of a smaller model."""
    change = "speculative: {mode: draft_tokens_external, max_draft_len: 4, draft: {path: ...}}"
    return serving_advice.speculation(recipe, change)
