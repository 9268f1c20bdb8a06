"""The tuning checklist as advice on a recipe; each rule is a pure function and fires or does not."""

from collections.abc import Callable

from pipeline.advice.lint import cache_advice, evidence, kernels, limit_advice
from pipeline.advice.lint.advice import Advice
from pipeline.models.shape import ModelShape
from recipes.schema import Recipe

Rule = Callable[[Recipe, ModelShape], Advice | None]

RULES: tuple[Rule, ...] = (
    kernels.fp8_weights,
    cache_advice.fp8_cache,
    kernels.multiple_profiles,
    kernels.gemm_plugin_on,
    kernels.gemm_plugin_off,
    cache_advice.paged_context,
    cache_advice.chunked_context,
    cache_advice.block_reuse,
    cache_advice.host_offload,
    kernels.reduce_fusion,
    kernels.user_buffer,
    kernels.gemm_swiglu,
    kernels.low_latency_gemm,
    kernels.low_latency_alone,
    kernels.fast_build,
    kernels.ranks_without_nvlink,
    limit_advice.batch_for_throughput,
    limit_advice.batch_for_latency,
    limit_advice.tokens_per_pass,
    limit_advice.speculation,
    limit_advice.queue_delay,
    evidence.calibration_length,
    evidence.gate_length,
    evidence.gate_size,
)
"""In the order in which they are told: what gains most first."""


def lint(recipe: Recipe, shape: ModelShape) -> list[Advice]:
    """Everything worth changing, or worth a trial."""
    return [advice for rule in RULES if (advice := rule(recipe, shape)) is not None]
