"""What of a model TensorRT-LLM's PyTorch backend computes as the model asks; pure.

Read in the public sources of `tensorrt_llm/_torch/models` and `_torch/modules`, about 1.0 to 1.3, and never
executed: a model with a switch that its class does not read is loaded without a word.
"""

from collections.abc import Iterator

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.trtllm_torch.llm_options import minor
from pipeline.trtllm.windows import attention_windows
from recipes.formats import Format

SERVED = (
    "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM",
)  # fmt: skip
"""Architectures with a class there in 1.0 to 1.3; Gemma2ForCausalLM came later."""

WINDOWED = ("Gemma3ForCausalLM",)
"""Architectures whose class gives each layer the window of `config.json` in all of these versions; Mistral's
does in late ones only, and those of Qwen and Phi-3 in none."""

EXPERTS = ("none", "fp8")
"""Formats of ours that its fused experts take; they raise at scales per channel."""

SPLITS = ("none", "fp8")
"""Formats whose tensors are cut rightly where the checkpoint holds query, key and value as one: by rows, two
int4 rows are one byte, and scales per row have another form."""

SPLITS_SCALES = (1, 1)
"""First version that loads scales of such linears (pull request 6761); those before take weights alone."""


def problems(request: BuildRequest) -> Iterator[str]:
    """What the PyTorch backend would compute otherwise, each with the recipe field to change."""
    architecture = request.shape.architecture
    if architecture not in SERVED:
        yield (
            f"model: {architecture} is not served by TensorRT-LLM's PyTorch backend up to 1.3; choose one of "
            f"{', '.join(SERVED)}, or engine.backend 'tensorrt'"
        )
        return
    yield from _windows(request)
    for fmt in request.precision.formats:
        yield from _fused(request, fmt) if request.shape.fused_source else _smoothed(request, fmt)
        if request.shape.experts is not None and fmt.name not in EXPERTS:
            yield (
                f"format: {fmt.name} experts are not loaded by TensorRT-LLM's PyTorch backend; "
                f"choose one of {', '.join(EXPERTS)}, or engine.backend 'tensorrt'"
            )


def _windows(request: BuildRequest) -> Iterator[str]:
    """Layers that would see more than the model's own do."""
    shape, longest = request.shape, request.engine.max_seq_len
    if shape.architecture in WINDOWED or attention_windows(shape.windows, longest) is None:
        return
    yield (
        f"engine.max_seq_len: layers of this {shape.architecture} see {shape.sliding_window} positions, and "
        f"all {longest} in TensorRT-LLM's PyTorch backend; lower it to {shape.sliding_window}, or choose "
        "engine.backend 'tensorrt'"
    )


def _fused(request: BuildRequest, fmt: Format) -> Iterator[str]:
    """Formats of a checkpoint with fused projections; its loader hands on no `pre_quant_scale` at all."""
    architecture, chain = request.shape.architecture, request.toolchain
    if fmt.name not in SPLITS:
        yield (
            f"format: {fmt.name} of {architecture}'s fused projections is not cut rightly by TensorRT-LLM's "
            f"PyTorch backend; choose one of {', '.join(SPLITS)}, or engine.backend 'tensorrt'"
        )
    elif fmt.quant_algo and chain is not None and minor(chain.version) < SPLITS_SCALES:
        yield (
            f"format: {fmt.name} scales of {architecture}'s fused projections are not loaded by the PyTorch "
            f"backend of TensorRT-LLM {chain.version}; choose a toolchain of 1.1 or newer, or format none"
        )


def _smoothed(request: BuildRequest, fmt: Format) -> Iterator[str]:
    """Smoothing that stays beside the linears: the loader of W4A16_AWQ drops that of fused linears.

    It looks for `pre_quant_scale` only where a linear is loaded alone; that of W4A8_AWQ takes it for query,
    key and value, and for gate and up projection too.
    """
    if fmt.name == "int4_awq" and not request.shape.folds_smoothing:
        yield (
            f"format: int4_awq of {request.shape.architecture} keeps its smoothing beside the linears, and "
            "TensorRT-LLM's PyTorch backend drops that of query, key, value, gate and up projection; choose "
            "fp8 or w4a8_awq, or engine.backend 'tensorrt'"
        )
