"""Advice on kernels and plugins of trtllm-build."""

from pipeline.advice.lint.advice import Advice, fp8, latency, off, on, option, searched, sm, tensorrt
from pipeline.advice.lint.guide import SOURCE, effect
from pipeline.models.shape import ModelShape
from pipeline.process.gpus import TARGETS
from recipes.schema import Recipe

FUSED = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")
"""Architectures that the guide fuses the all-reduce of."""

HOPPER = 90


def multiple_profiles(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Kernels chosen for several ranges of tokens instead of one."""
    left_to_us = recipe.traffic is not None and not off(recipe, "multiple_profiles")
    if not tensorrt(recipe) or on(recipe, "multiple_profiles") or left_to_us:
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
    if (
        not tensorrt(recipe)
        or recipe.precision.quantizes
        or option(recipe, "gemm_plugin") not in (None, "disable")
    ):
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
    if not tensorrt(recipe) or not fp8(recipe) or option(recipe, "gemm_plugin") in (None, False, "disable"):
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
    wanted = recipe.engine.tp > 1 and shape.architecture in FUSED
    if not tensorrt(recipe) or not wanted or on(recipe, "reduce_fusion"):
        return None
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
    if (
        not tensorrt(recipe)
        or not fp8(recipe)
        or not on(recipe, "reduce_fusion")
        or on(recipe, "user_buffer")
    ):
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
    tried = on(recipe, "gemm_swiglu_plugin") or searched(recipe, "options.gemm_swiglu_plugin")
    if not tensorrt(recipe) or not able or tried:
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
    tried = on(recipe, "low_latency_gemm_plugin") or searched(recipe, "options.low_latency_gemm_plugin")
    if not tensorrt(recipe) or not fp8(recipe) or sm(recipe) != HOPPER:
        return None
    if tried or not on(recipe, "gemm_swiglu_plugin"):
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
    if not tensorrt(recipe) or not alone:
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
    if not tensorrt(recipe) or not on(recipe, "fast_build"):
        return None
    return Advice(
        id="fast_build",
        text="build what is published without fast_build",
        effect="trtllm-build's help: performance may degrade; no figure",
        source="TensorRT-LLM, commands/build.py",
        change="engine.options.fast_build: false",
    )


def fp8_weights(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """FP8 on a GPU that computes it."""
    if recipe.engine.backend == "aoti" or recipe.precision.quantizes or sm(recipe) < 89:
        return None
    return Advice(
        id="fp8_weights",
        text=f"{recipe.engine.target} computes FP8; quantize, and let the gate judge",
        effect=effect("tokens_2048", "fp8"),
        source=SOURCE,
        change="format: fp8",
    )


def ranks_without_nvlink(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """Tensor parallelism over PCIe."""
    target = TARGETS.get(recipe.engine.target)
    if target is None or target.nvlink or recipe.engine.tp == 1:
        return None
    joined = [name for name, gpu in TARGETS.items() if gpu.nvlink and gpu.sm >= target.sm]
    why = (
        "each all-reduce, two per layer,"
        if not latency(recipe)
        else "every token waits for two all-reduces per layer that"
    )
    return Advice(
        id="ranks_without_nvlink",
        text=f"{recipe.engine.target} has no NVLink: {why} crosses PCIe; split the layers instead, or take "
        f"{' or '.join(joined[:2])}",
        effect="64 GB/s at most over PCIe 4, against 600 to 1,800 GB/s; not measured",
        source="data sheets, as in pipeline/process/gpus.py",
        change=f"engine: {{tp: 1, pp: {recipe.engine.tp * recipe.engine.pp}}}",
    )
