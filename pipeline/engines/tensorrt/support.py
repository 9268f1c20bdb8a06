"""What of models, formats and GPUs each TensorRT-LLM version builds; from its release notes, as cited."""

from collections.abc import Iterator

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.tensorrt.capabilities import Capabilities
from pipeline.trtllm.target_gpus import sm
from recipes.precision import Precision

Number = tuple[int, int]

FAMILIES: dict[str, Number] = {
    "LlamaForCausalLM": (0, 8),
    "MistralForCausalLM": (0, 8),
    "MixtralForCausalLM": (0, 10),  # those before name experts otherwise: mlp.experts_weight_1
    "Qwen2ForCausalLM": (0, 10),
    "Phi3ForCausalLM": (0, 10),
    "Qwen2MoeForCausalLM": (0, 12),  # that of 0.11 cannot be made from a config.json: it takes moe as it is
    "Gemma2ForCausalLM": (0, 13),
    "Gemma3ForCausalLM": (0, 19),
    "Qwen3ForCausalLM": (0, 20),
}
"""Architecture -> first version that builds engines of it ("Model Updates" of that release)."""

ROTARY: dict[str, Number] = {"linear": (0, 8), "dynamic": (0, 8), "longrope": (0, 10), "llama3": (0, 12)}
"""Rotary scaling -> first version; longrope came with Phi-3, llama3 with Llama 3.1."""

ALGORITHMS: dict[str, Number] = {
    "W4A8_AWQ": (0, 9),  # 0.8 knows the name, and loads the weights as they lie
    "W8A8_SQ_PER_CHANNEL": (0, 15),  # "TensorRT native support for INT8 Smooth Quantization"
    "MIXED_PRECISION": (0, 15),  # "AutoQ (mixed precision) support"
    # 0.12 to 0.14 quantize neither attentions nor first and last layers (fp8_rowwise_quantize)
    "FP8_PER_CHANNEL_PER_TOKEN": (0, 15),
}
"""TensorRT-LLM's name of a format -> first version; every version for the others."""

EXPERT_ALGORITHMS: dict[str, Number] = {
    "FP8": (0, 10),  # "FP8 quantization support for Mixtral"
    "W4A16_AWQ": (0, 19),  # "INT4-AWQ support for MoE models"
    "W4A8_AWQ": (0, 19),
}
"""The same for mixtures of experts."""

ADA: dict[tuple[str | None, str], Number] = {
    ("W4A8_AWQ", ""): (0, 10),  # "W4A(fp)8 CUTLASS kernels for the NVIDIA Ada Lovelace architecture"
    ("W4A8_AWQ", "bfloat16"): (0, 16),  # "W4A8 quantization support to BF16 models on Ada (SM89)"
}
"""Format and type of the model (empty: any) -> first version on sm_89."""

BLACKWELL: Number = (0, 17)
"""Release notes: "Blackwell support"; CUDA 12.8 is the first that knows sm_100."""

BLACKWELL_ALGORITHMS = {"", "FP8"}
"""Formats that sm_100 builds: int8, int4 and scales per channel raise there (`builder.build`, 1.0 on)."""

TP_WITH_EP: Number = (0, 11)
"""Release notes: "tensor parallelism and expert parallelism enabled together for MoE"."""

MODES: dict[str, Number] = {
    "draft_tokens_external": (0, 10),  # first table with the option
    "medusa": (0, 17),  # the first LLM class with a tree for it (card of nvidia/Llama-3.1-8B-Medusa-FP8)
    "lookahead_decoding": (0, 13),  # "Supported lookahead decoding (experimental)"
    "eagle": (0, 19),  # the first documentation of an LLM class with a tree for it; builds since 0.15
}
"""Speculative decoding mode -> first version."""


def algorithm(precision: Precision) -> str | None:
    """TensorRT-LLM's name of the checkpoint's format, as in its config.json; None: not quantized."""
    names = {_algorithm(fmt.quant_algo) for fmt in precision.formats if fmt.quant_algo}
    if len(names) > 1:
        return "MIXED_PRECISION"
    return next(iter(names), None)


def _algorithm(name: str) -> str:
    """The name in checkpoints: int4 weights with a scale per block are AWQ there, smoothed or not."""
    return "W4A16_AWQ" if name == "W4A16" else name


def problems(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    """What the toolchain's version does not build, each with the recipe field to change."""
    yield from _model(request, table)
    yield from _format(request, table)
    yield from _gpu(request, table)
    yield from _parallel(request, table)
    yield from _speculative(request, table)


def _since(number: Number) -> str:
    return f"{number[0]}.{number[1]}"


def _model(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    architecture = request.shape.architecture
    since = FAMILIES.get(architecture)
    if since is None:
        yield (
            f"model: TensorRT-LLM's engines are not built for {architecture}; "
            f"choose one of {', '.join(FAMILIES)}, or backend aoti"
        )
    elif table.number < since:
        yield (
            f"model: {architecture} needs TensorRT-LLM {_since(since)}; this toolchain is {table.version}; "
            "choose a newer one with engine.toolchain"
        )
    scaling = (request.shape.rope_scaling or {}).get("rope_type")
    if scaling is None:
        return
    first = ROTARY.get(scaling)
    if first is None or table.number < first:
        rotary = [name for name, number in ROTARY.items() if table.number >= number]
        yield (
            f"model: TensorRT-LLM {table.version} is not given rope_type {scaling!r}; "
            f"it is given none, {', '.join(rotary)}"
        )


def _format(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    name = algorithm(request.precision)
    since = ALGORITHMS.get(name or "", (0, 0))
    kind = "model"
    if request.shape.experts is not None and EXPERT_ALGORITHMS.get(name or "", (0, 0)) > since:
        since, kind = EXPERT_ALGORITHMS[name or ""], "mixture of experts"
    if table.number < since:
        yield (
            f"format: {request.precision} of a {kind} needs TensorRT-LLM {_since(since)}, where {name} is "
            f"first read; this toolchain is {table.version}; choose a newer one, or another format"
        )
    yield from _ada(request, table)


def _ada(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    """Formats that sm_89 got later than sm_90."""
    name, dtype = algorithm(request.precision), request.shape.dtype
    since = ADA.get((name, dtype)) or ADA.get((name, ""))
    if sm(request) == 89 and since is not None and table.number < since:
        yield (
            f"format: {request.precision} on sm_89 needs TensorRT-LLM {_since(since)}; this toolchain is "
            f"{table.version}; choose a newer one, or another format"
        )


def _gpu(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    capability = sm(request)
    least = max(fmt.min_sm for fmt in request.precision.formats)
    if request.engine.target == "host" and capability is not None and capability < least:
        yield (
            f"format: {request.precision} needs sm_{least}; this host's GPU is sm_{capability}; "
            "choose another format, or build on another host"
        )
    if capability is None or not 100 <= capability < 120:
        return
    if table.number < BLACKWELL:
        yield (
            f"engine.target: sm_{capability} needs TensorRT-LLM {_since(BLACKWELL)}; this toolchain is "
            f"{table.version}; choose a newer one with engine.toolchain"
        )
    if {fmt.quant_algo for fmt in request.precision.formats} - BLACKWELL_ALGORITHMS:
        yield (
            f"format: {request.precision} is not built for sm_{capability}, where TensorRT-LLM refuses int8, "
            "int4 and scales per channel; choose fp8 or none"
        )
    if request.kv_cache == "int8":
        yield f"kv_cache: int8 is not built for sm_{capability}; choose fp8 or auto"


def _parallel(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    engine = request.engine
    if engine.ep not in (1, engine.tp) and table.number < TP_WITH_EP:
        yield (
            f"engine.ep: {engine.ep} of {engine.tp} ranks needs TensorRT-LLM {_since(TP_WITH_EP)}; this "
            f"toolchain is {table.version}; choose 1 or {engine.tp}"
        )


def _speculative(request: BuildRequest, table: Capabilities) -> Iterator[str]:
    speculative = request.speculative
    if speculative is None:
        return
    option = table.options.get("speculative_decoding_mode")
    first = MODES[speculative.mode]
    if option is None or speculative.mode not in option.choices or table.number < first:
        yield (
            f"speculative.mode: {speculative.mode} needs TensorRT-LLM {_since(first)}; this toolchain is "
            f"{table.version}; choose a newer one with engine.toolchain"
        )
