"""Advice on prompts, requests and speculation for engines of trtllm-build."""

from pipeline.backend.lint_rule import Advice, latency, longest_prompt, num_tokens, off, on
from pipeline.models.shape import ModelShape
from pipeline.trtllm import cache_advice, serving_advice
from pipeline.trtllm.tuning_guide import SOURCE, effect
from recipes.schema import Recipe


def paged_context(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Prompt attention over the paged cache, which reuse and chunks need."""
    shared = recipe.traffic is not None and recipe.traffic.shared_prefix_tokens > 0
    needed = shared or longest_prompt(recipe) > num_tokens(recipe)
    # Paged context attention does not read an INT8 cache: advice would be refused.
    if on(recipe, "use_paged_context_fmha") or recipe.kv_cache == "int8":
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
    """Prompts in pieces instead of passes that hold the longest."""
    longest, fits = longest_prompt(recipe), num_tokens(recipe)
    if fits <= 8192 or longest <= 8192:
        return None
    return cache_advice.chunked_context(
        longest, f" instead of making room for {fits} tokens per pass", "engine.options.max_num_tokens: 8192"
    )


def host_offload(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """Shared prefixes in host memory, which Triton turns on."""
    change = (
        f"enginery export {recipe.name}@{recipe.publish.alias} --to triton "
        f"--set kv_host_memory_bytes={cache_advice.HOST_CACHE_BYTES}"
    )
    return cache_advice.host_offload(recipe, shape, change)


def speculation(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Proposals without a draft model."""
    return serving_advice.speculation(recipe, "speculative: {mode: lookahead_decoding, max_draft_len: 8}")


def queue_delay(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Triton's waiting for more requests, which in-flight batching makes pointless."""
    if not latency(recipe):
        return None
    return Advice(
        id="queue_delay",
        text="let Triton hand requests over at once: the engine's own scheduler batches them in flight",
        effect="every microsecond of delay is added to the first token; not measured",
        source="triton-inference-server/tensorrtllm_backend, model configuration: default 0",
        change=f"enginery export {recipe.name}@{recipe.publish.alias} --to triton --set queue_delay_us=0",
    )
