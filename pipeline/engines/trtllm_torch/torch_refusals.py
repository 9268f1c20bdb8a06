"""Why the PyTorch backend of TensorRT-LLM cannot serve what a recipe asks for; pure.

Formats by GPU are those of the hardware matrix in `docs/source/features/quantization.md` of TensorRT-LLM
(@09d4c79b, about 1.2); INT8 formats and weight-only int4 without AWQ are not in it.
"""

from collections.abc import Iterator

from pipeline.backend.build_request import BuildRequest
from pipeline.drafting.modes import BUILT
from pipeline.engines.trtllm_torch import models
from pipeline.engines.trtllm_torch.llm_options import minor, table_of, tables
from pipeline.engines.trtllm_torch.torch_settings import (
    SPECULATIVE,
    least_num_tokens,
    longest_prompt,
    max_num_tokens,
    needs_chunks,
)
from pipeline.trtllm import target_gpus

FIRST = (1, 0)
"""The first version whose PyTorch backend is the default and stable one."""

AMPERE = ("none", "int4_awq")
ADA = ("none", "fp8", "int4_awq", "w4a8_awq")
HOPPER = (*ADA, "fp8_rowwise")
BLACKWELL = ("none", "fp8")

SERVED = {80: AMPERE, 86: AMPERE, 89: ADA, 90: HOPPER, 100: BLACKWELL, 103: BLACKWELL, 120: BLACKWELL}
"""Compute capability times ten -> formats."""


def reasons(request: BuildRequest) -> list[str]:
    """Lists them, each with the recipe field to change."""
    problems = [*_version(request), *_formats(request), *_kv_cache(request), *_speculative(request)]
    return [*problems, *_tokens(request), *models.problems(request)]


def _version(request: BuildRequest) -> Iterator[str]:
    if request.toolchain is None:
        return
    version = request.toolchain.version
    if minor(version) < FIRST:
        yield (
            f"engine.toolchain: TensorRT-LLM {version} has no PyTorch backend to build for; "
            "choose a toolchain of 1.0 or newer, or engine.backend 'tensorrt'"
        )
    elif table_of(version) is None:
        yield (
            f"engine.toolchain: the LLM API options of TensorRT-LLM {version} are not known; "
            f"choose a toolchain of {', '.join(tables())}"
        )


def _formats(request: BuildRequest) -> Iterator[str]:
    precision, sm = request.precision, target_gpus.sm(request)
    if not precision.uniform:
        yield (
            f"format: {precision} is not served by trtllm_torch in this version; "
            "give all linears one format, or choose engine.backend 'tensorrt' or 'aoti'"
        )
        return
    name = precision.default.name
    # Where the GPU is not known, a format is refused only if no GPU serves it.
    everywhere = {fmt for formats in SERVED.values() for fmt in formats}
    if name not in everywhere:
        yield (
            f"format: {name} is not in the hardware matrix of TensorRT-LLM's PyTorch backend; "
            f"choose one of {', '.join(sorted(everywhere))}, or engine.backend 'tensorrt'"
        )
    elif sm is not None and sm not in SERVED:
        yield f"engine.target: sm_{sm} is not in the hardware matrix of TensorRT-LLM's PyTorch backend"
    elif sm is not None and name not in SERVED[sm]:
        yield (
            f"format: {name} is not served on sm_{sm} by TensorRT-LLM's PyTorch backend; "
            f"choose one of {', '.join(SERVED[sm])}, or another engine.target"
        )


def _kv_cache(request: BuildRequest) -> Iterator[str]:
    if request.kv_cache == "int8":
        yield (
            "kv_cache: int8 is not in the hardware matrix of TensorRT-LLM's PyTorch backend; "
            "choose auto or fp8, or engine.backend 'tensorrt'"
        )


def _speculative(request: BuildRequest) -> Iterator[str]:
    if request.speculative is None:
        return
    if request.speculative.mode not in SPECULATIVE:
        able = ", ".join(mode for mode in SPECULATIVE if mode in BUILT)
        yield (
            f"speculative.mode: {request.speculative.mode} is served by built engines only; choose {able}, "
            "set engine.options.speculative_config, or choose engine.backend 'tensorrt'"
        )
    if "speculative_config" in request.engine.options:
        yield "engine.options.speculative_config: the recipe has `speculative` too; give one of the two"


def _tokens(request: BuildRequest) -> Iterator[str]:
    most, least = max_num_tokens(request), least_num_tokens(request)
    if most < least:
        yield (
            f"engine.options.max_num_tokens: {most} is less than one step of {least} tokens takes; "
            f"give at least {least}, or lower engine.max_batch_size"
        )
    # An explicit no only: where the recipe is silent, `torch_settings` switches it on.
    if needs_chunks(request) and request.engine.options.get("enable_chunked_prefill") is False:
        yield (
            f"engine.options.enable_chunked_prefill: prompts of {longest_prompt(request)} tokens do not fit "
            f"max_num_tokens {most} without it; leave it out, or raise max_num_tokens"
        )
