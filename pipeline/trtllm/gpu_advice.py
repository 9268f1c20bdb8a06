"""Advice on formats and GPUs, for both backends of TensorRT-LLM."""

from pipeline.backend.lint_rule import Advice, latency, sm
from pipeline.models.shape import ModelShape
from pipeline.process.gpus import TARGETS
from pipeline.trtllm.tuning_guide import SOURCE, effect
from recipes.schema import Recipe


def fp8_weights(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """FP8 on a GPU that computes it."""
    if recipe.precision.quantizes or sm(recipe) < 89:
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
