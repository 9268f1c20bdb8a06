"""Advice on kernels and plugins of trtllm-build."""

from pipeline.backend.lint_rule import Advice, fp8, off, on, option, searched, sm
from pipeline.models.shape import ModelShape
from pipeline.trtllm.tuning_guide import SOURCE, effect
from recipes.schema import Recipe

FUSED = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")
"""Architectures that the guide fuses the all-reduce of."""

HOPPER = 90


def multiple_profiles(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Kernels chosen for several ranges of tokens instead of one."""
    # With `traffic` the rules switch it on by themselves (`rules._profiles`).
    left_to_us = recipe.traffic is not None and not off(recipe, "multiple_profiles")
    if on(recipe, "multiple_profiles") or left_to_us:
        return None
    return Advice(
        id="multiple_profiles",
        text="choose kernels for several ranges of tokens per pass; the build takes longer",
        effect=effect("bf16", "profiles"),
        source=SOURCE,
        change="engine.options.multiple_profiles: enable",
    )


def gemm_plugin_on(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """cuBLASLt for unquantized products."""
    if recipe.precision.quantizes or option(recipe, "gemm_plugin") not in (None, "disable"):
        return None
    return Advice(
        id="gemm_plugin_on",
        text="let cuBLASLt compute unquantized products",
        effect=effect("paged_context", "gemm_plugin"),
        source=SOURCE,
        change="engine.options.gemm_plugin: auto",
    )


def gemm_plugin_off(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """TensorRT's own kernels for FP8 products."""
    if not fp8(recipe) or option(recipe, "gemm_plugin") in (None, False, "disable"):
        return None
    return Advice(
        id="gemm_plugin_off",
        text="let TensorRT choose kernels for FP8 products: the plugin takes the choice away",
        effect="the guide leaves it off for FP8; it gives no figure",
        source=SOURCE,
        change="engine.options.gemm_plugin: disable",
    )


def reduce_fusion(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """The all-reduce, the residual and the norm as one kernel."""
    able = recipe.engine.tp > 1 and shape.architecture in FUSED
    if not able or on(recipe, "reduce_fusion"):
        return None
    # In FP8 the guide measured both only together, without FP8 this one alone.
    measured = effect("fp8_kv", "user_buffer") + ", with user_buffer and larger limits"
    return Advice(
        id="reduce_fusion",
        text="compute all-reduce, residual and norm as one kernel (Llama only, before 1.0)",
        effect=measured if fp8(recipe) else effect("gemm_plugin", "reduce_fusion"),
        source=SOURCE,
        change="engine.options.reduce_fusion: enable",
    )


def user_buffer(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """No copy before the fused all-reduce."""
    if not fp8(recipe) or not on(recipe, "reduce_fusion") or on(recipe, "user_buffer"):
        return None
    return Advice(
        id="user_buffer",
        text="spare the fused all-reduce a copy",
        effect=effect("fp8_kv", "user_buffer") + ", with reduce_fusion and larger limits",
        source=SOURCE,
        change="engine.options.user_buffer: enable",
    )


def gemm_swiglu(recipe: Recipe, shape: ModelShape) -> Advice | None:
    """Gate, up projection and SwiGLU as one kernel: a trial."""
    able = fp8(recipe) and sm(recipe) == HOPPER and shape.hidden_act == "silu" and shape.experts is None
    # A trial in the search and not an option: every point of a search passes the gate.
    in_trial = on(recipe, "gemm_swiglu_plugin") or searched(recipe, "options.gemm_swiglu_plugin")
    if not able or in_trial:
        return None
    return Advice(
        id="gemm_swiglu",
        text="try gate, up projection and SwiGLU as one kernel; it drops a scale: the gate has to judge",
        effect=effect("user_buffer", "gemm_swiglu"),
        source=SOURCE,
        change="tune.space: {options.gemm_swiglu_plugin: [disable, fp8]}",
    )


def low_latency_gemm(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Products tuned for few tokens, where the other FP8 kernel is on: a trial."""
    in_trial = on(recipe, "low_latency_gemm_plugin") or searched(recipe, "options.low_latency_gemm_plugin")
    if not fp8(recipe) or sm(recipe) != HOPPER:
        return None
    # Alone it was slower: see `low_latency_alone`.
    if in_trial or not on(recipe, "gemm_swiglu_plugin"):
        return None
    return Advice(
        id="low_latency_gemm",
        text="try FP8 products tuned for few tokens; the first token may come later",
        effect=effect("gemm_swiglu", "low_latency_gemm"),
        source=SOURCE,
        change="tune.space: {options.low_latency_gemm_plugin: [disable, fp8]}",
    )


def low_latency_alone(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """The few-token products without the kernel that they need beside them."""
    alone = on(recipe, "low_latency_gemm_plugin") and not on(recipe, "gemm_swiglu_plugin")
    if not alone:
        return None
    return Advice(
        id="low_latency_alone",
        text="turn gemm_swiglu_plugin on too, or low_latency_gemm_plugin off",
        effect="the guide found it slower alone; it gives no figure",
        source=SOURCE,
        change="engine.options.gemm_swiglu_plugin: fp8",
    )


def fast_build(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """A build that is quick because it searches less."""
    if not on(recipe, "fast_build"):
        return None
    return Advice(
        id="fast_build",
        text="build what is published without fast_build",
        effect="trtllm-build's help: performance may degrade; no figure",
        source="TensorRT-LLM, commands/build.py",
        change="engine.options.fast_build: false",
    )
