"""What TensorRT-LLM's loader makes of a sharded checkpoint: what it cannot load, and what it quantizes; pure.

Read in the public sources of v0.16.0 (preprocess_weights in `models/modeling_utils.py`, `mapping.py`,
`quantization/quantize.py`) and of one later version. Rules say where versions differ. Names and shapes were
held against the classes of 0.8 to 0.17 themselves: tests/pipeline/checkpoint/data/tensor_names.

Vocabulary tables need no rule: rows are padded to a multiple of tp, as its own `pad_vocab_size` does, while
`vocab_size` in config.json stays the model's; `embedding_sharding_dim` is 0, rows over the ranks, which it
loads for every tp. The output head stays in the source dtype in every format: the loader of v0.16 drops an
FP8 head's scales and asserts that a per-token FP8 model's head is not quantized.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.checkpoint.families import family
from pipeline.checkpoint.layout_checks import divisors
from pipeline.checkpoint.modules import Linear
from pipeline.models.shape import ModelShape
from recipes.formats import FORMATS, Format
from recipes.precision import Precision

AT_BUILD = ("int8_wo",)
"""Formats whose linears stay in the source dtype until `trtllm-build` loads and quantizes them.

W8A16 weights that are int8 already are taken as they are, transposed and permuted for one GPU architecture,
with a `per_channel_scale` (`weight_only_quantize_dict`): no tool writes that outside TensorRT-LLM's kernels.
Its own quantize.py leaves them in the source dtype for the same reason. It rounds to 1/128 of a channel's
largest weight, where the formats of this program round to 1/127.
"""

UNTOUCHED = (
    "lm_head", "*lm_head", "*router", "*vocab_embedding", "*position_embedding", "*block_embedding",
    "*shared_expert_gate",
)  # fmt: skip
"""Modules that W8A16 spares unless `exclude_modules` is given; then they must be in it, embeddings too.

The first is for 0.10 and earlier, which know no patterns.
"""

MIXED_GEMM = 64
"""The kernels of int4 weights take inputs and outputs per rank in multiples of this (v0.16, both)."""

STACKED_BLOCKS = (1,)
"""First versions whose experts were seen to take scales per block; `MOEWeightWrapper` of v0.16 has none."""

WHOLE_STAGES = ("Phi3ForCausalLM",)
"""Networks with embedding, final norm and head on every rank: no version cuts them into stages."""

SHARED_TABLE = {"Gemma2ForCausalLM": (0, 16)}
"""First version that does not share embedding and head, which earlier ones refuse over several stages."""

GROUPED_HEADS = {"Phi3ForCausalLM": (0, 11)}
"""First version whose network has fewer key heads than query heads."""

SPARES = (0, 13)
"""First version whose `weight_only_quantize_dict` spares what `exclude_modules` names."""

SPREADS = (0, 18)
"""First version whose first stages take the layers that pp does not divide; those before drop them."""


def unloadable(
    shape: ModelShape, precision: Precision, tp: int, pp: int, version: str, ep: int = 1
) -> list[str]:
    """Lists why TensorRT-LLM of that version cannot load the checkpoint, each with the field to change.

    What no backend can load is `checks.reasons`' business. An empty version means the newest.
    """
    release = numbers(version)
    problems = [*_check_stages(shape, pp, version, release), *_check_network(shape, pp, version, release)]
    if not problems:
        problems += [*_check_rowwise(shape, precision), *_check_stage_formats(shape, precision, pp)]
        problems += [*_check_expert_blocks(shape, precision, version, release)]
        problems += [*_check_exclusions(shape, precision, version, release)]
        problems += dict.fromkeys(_check_mixed_gemm(shape, precision, tp, ep))
    return problems


def numbers(version: str) -> tuple[int, ...]:
    """Reads `0.16.0` or `1.2.0rc3` as its leading numbers; an empty version is later than any."""
    if not version:
        # Rules compare with `<`: a version that is not stated must fail none of those about old releases.
        return (99,)
    problems = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        problems.append(int(digits))
        if digits != part:
            break
    return tuple(problems)


def stored(precision: Precision) -> Precision:
    """The precision of the weights in a checkpoint for TensorRT-LLM: its own formats wait for the build."""
    if not any(fmt.name in AT_BUILD for fmt in precision.formats):
        return precision

    def kept(fmt: Format) -> Format:
        return FORMATS["none"] if fmt.name in AT_BUILD else fmt

    exceptions = tuple((pattern, kept(fmt)) for pattern, fmt in precision.exceptions)
    return replace(precision, default=kept(precision.default), exceptions=exceptions)


def _check_stages(shape: ModelShape, pp: int, version: str, release: tuple[int, ...]) -> Iterator[str]:
    remainder = shape.num_layers % pp
    if remainder and release < SPREADS:
        yield (
            f"engine.pp: TensorRT-LLM {version} gives each of {pp} stages {shape.num_layers // pp} layers "
            f"and silently drops the last {remainder}; choose one of {divisors(shape.num_layers)}"
        )
    # Since 0.18 the loader accepts unequal stages, but only with the larger ones first.
    elif remainder:
        yield (
            f"engine.pp: TensorRT-LLM expects one more layer in the first {remainder} of {pp} stages, and "
            f"rank files here have stages of one size; choose one of {divisors(shape.num_layers)}"
        )


def _check_network(shape: ModelShape, pp: int, version: str, release: tuple[int, ...]) -> Iterator[str]:
    """What a family's own network lacks."""
    name = shape.architecture
    if pp > 1 and name in WHOLE_STAGES:
        yield (
            f"engine.pp: TensorRT-LLM's {name} has embedding, norm and head on every rank and loads no "
            "stages; set engine.pp to 1, and engine.tp for more GPUs"
        )
    if pp > 1 and release < SHARED_TABLE.get(name, (0,)):
        yield (
            f"engine.pp: TensorRT-LLM {version} shares the embedding table of {name} with its head, and "
            "refuses that over stages; set engine.pp to 1, or take a toolchain of 0.16 or later"
        )
    if shape.num_kv_heads != shape.num_heads and release < GROUPED_HEADS.get(name, (0,)):
        yield (
            f"model: TensorRT-LLM {version} gives {name} as many key heads as query heads, found "
            f"{shape.num_kv_heads} for {shape.num_heads}; take a toolchain of 0.11 or later"
        )


def _check_rowwise(shape: ModelShape, precision: Precision) -> Iterator[str]:
    """Per-token FP8 replaces whole attentions, MLPs and norms, never one linear."""
    layers = _list_formats(shape, precision)
    names = {fmt.name for layer in layers for fmt in layer}
    if "fp8_rowwise" in names and len(names) > 1:
        others = ", ".join(sorted(names - {"fp8_rowwise"}))
        yield (
            f"format.except: TensorRT-LLM knows fp8_rowwise for a whole model only, not beside {others}; "
            "use fp8 in its place, or give every linear fp8_rowwise"
        )


def _check_stage_formats(shape: ModelShape, precision: Precision, pp: int) -> Iterator[str]:
    """Formats are looked up by a layer's number in its stage: stages must be alike."""
    layers, each = _list_formats(shape, precision), shape.num_layers // pp
    for layer, formats in enumerate(layers):
        # The loader numbers layers from 0 in every stage when it looks a format up.
        if formats != layers[layer % each]:
            yield (
                f"format.except: layer {layer} has other formats than layer {layer % each}, and TensorRT-LLM "
                f"looks both up as layer {layer % each} of a stage of {each}; set engine.pp to 1, or give "
                "every stage the same formats"
            )
            return


def _check_expert_blocks(
    shape: ModelShape, precision: Precision, version: str, release: tuple[int, ...]
) -> Iterator[str]:
    """Older experts know weights of one scale per channel only."""
    kin = family(shape.architecture)
    firsts = [stack.sources[0] for stack in kin.stacks(shape)]
    formats = (precision.of(f"{kin.layers}.{n}.{each}") for n in range(shape.num_layers) for each in firsts)
    # The first linear of a stack decides: layout_checks refuses stacks with more than one format.
    blocked = next((fmt for fmt in formats if fmt.block_size), None)
    if blocked is not None and release < STACKED_BLOCKS:
        yield (
            f"format: the experts of TensorRT-LLM {version} have no scales per block ({blocked.name}); "
            "give '*experts*' fp8 or none in format.except, or take a toolchain of 1.0 or later"
        )


def _check_exclusions(
    shape: ModelShape, precision: Precision, version: str, release: tuple[int, ...]
) -> Iterator[str]:
    """Older loaders quantize every linear, and what ends in `gate.weight`, whatever the network leaves."""
    late = next((fmt.name for fmt in precision.formats if fmt.name in AT_BUILD), None)
    if late is None or release >= SPARES:
        return
    # These releases ignore `exclude_modules` in weight-only mode (see SPARES).
    others = {fmt.name for layer in _list_formats(shape, precision) for fmt in layer} - {late}
    shared = shape.experts is not None and shape.experts.shared_intermediate_size
    unquantized = ["the gate of the shared expert"] if shared else []
    unquantized += [f"the linears of format {', '.join(sorted(others))}"] if others else []
    if unquantized:
        yield (
            f"format: TensorRT-LLM {version} quantizes {' and '.join(unquantized)} too when it loads "
            f"{late}, and then refuses them; take a toolchain of 0.13 or later, or another format"
        )


def _list_formats(shape: ModelShape, precision: Precision) -> list[list[Format]]:
    """The formats of every layer's linears."""
    kin = family(shape.architecture)
    return [
        [
            precision.of(f"{kin.layers}.{layer}.{module.sources[0]}")
            for module in kin.layer(shape)
            if isinstance(module, Linear)
        ]
        for layer in range(shape.num_layers)
    ]


def _check_mixed_gemm(shape: ModelShape, precision: Precision, tp: int, ep: int) -> Iterator[str]:
    """Says which int4 linears have inputs or outputs per rank that no kernel takes."""
    kin = family(shape.architecture)
    modules = [module for module in kin.layer(shape) if isinstance(module, Linear)]
    for layer in range(shape.num_layers):
        for module in modules:
            fmt = precision.of(f"{kin.layers}.{layer}.{module.sources[0]}")
            inputs, outputs = _count_channels(module, tp // ep if module.experts else tp)
            if fmt.weight == "int4" and (inputs % MIXED_GEMM or outputs % MIXED_GEMM):
                yield (
                    f"engine.tp: {tp} gives each rank {inputs} inputs and {outputs} outputs of "
                    f"{module.local}; TensorRT-LLM's kernels for {fmt.name} take multiples of {MIXED_GEMM}; "
                    "choose another tp or format"
                )


def _count_channels(module: Linear, tp: int) -> tuple[int, int]:
    """Inputs and outputs of a linear on one rank; too few heads are repeated."""
    if module.split == "row":
        return module.inputs // tp, sum(part.outputs for part in module.parts)
    return module.inputs, sum(part.outputs // min(tp, part.units) for part in module.parts)
