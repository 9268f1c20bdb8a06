"""Formats of the linears and of the KV cache in a sharded checkpoint."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from recipes.formats import FORMATS
from recipes.precision import Precision

LINEARS = {
    "attention.qkv": "self_attn.q_proj",
    "attention.dense": "self_attn.o_proj",
    "mlp.fc": "mlp.gate_proj",
    "mlp.gate": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
}
"""Linears of a layer, and the source linear whose format each has; fused ones have one format."""

FUSED_LINEARS = {
    "attention.qkv": "self_attn.qkv_proj",
    "attention.dense": "self_attn.o_proj",
    "mlp.fc": "mlp.gate_up_proj",
    "mlp.proj": "mlp.down_proj",
}
"""Those of a network whose source fuses them already: `mlp.fc` holds up and gate projection."""

MIXTRAL_LINEARS = {
    "attention.qkv": "self_attn.q_proj",
    "attention.dense": "self_attn.o_proj",
    "mlp.fc": "block_sparse_moe.experts.0.w3",
    "mlp.proj": "block_sparse_moe.experts.0.w2",
}
"""Those of a network with experts, whose linears are stacked: all of a stack have one format."""

QWEN_MOE_LINEARS = MIXTRAL_LINEARS | {
    "mlp.fc": "mlp.experts.0.up_proj",
    "mlp.proj": "mlp.experts.0.down_proj",
    "mlp.shared_expert.fc": "mlp.shared_expert.up_proj",
    "mlp.shared_expert.proj": "mlp.shared_expert.down_proj",
}
"""Those of a network with experts and a shared one."""

MIXED, MIXED_FILE = "MIXED_PRECISION", "quant_cfg.json"
"""The `quant_algo` of mixed precision, and the file beside config.json with each linear's own."""

KV_CACHES = {None: "auto", "FP8": "fp8", "INT8": "int8"}
"""`kv_cache_quant_algo` -> the recipe's word."""

ALGORITHMS = {fmt.quant_algo: fmt.name for fmt in FORMATS.values() if fmt.quant_algo}


@dataclass(frozen=True, slots=True)
class LinearFormat:
    """How one linear's weight is stored."""

    format: str
    """Name of a row of FORMATS."""
    group_size: int = 0
    """Input channels that share a scale; 0 unless scales are per block."""


UNQUANTIZED = LinearFormat("none")


BESIDE = re.compile(r"(\.layers\.\d+)\.shared_expert")
"""A shared expert's name in rank files of layout 2 (engines of 0.1 hold them) and for TensorRT-LLM 0.15."""


def newest(name: str) -> str:
    """The newest name of a tensor or module: a shared expert is a part of `mlp`."""
    return BESIDE.sub(r"\1.mlp.shared_expert", name)


def name_of(layer: int, linear: str) -> str:
    """A linear's name by its layer's number in the whole model, whatever the pipeline stage."""
    return f"transformer.layers.{layer}.{linear}"


def linears_of(
    quantization: Mapping[str, Any], num_layers: int, checkpoint: Path, sources: Mapping[str, str] = LINEARS
) -> tuple[Mapping[str, LinearFormat], ...]:
    """Reads the block `quantization` of config.json, and quant_cfg.json where that says mixed precision.

    Raises SourceError for formats that this backend does not build and for linears that the model lacks.
    """
    names = {name_of(layer, linear) for layer in range(num_layers) for linear in sources}
    if quantization.get("quant_algo") == MIXED:
        formats = _each(checkpoint / MIXED_FILE, names)
    else:
        default, excluded = _format(quantization, "config.json"), quantization.get("exclude_modules") or ()
        # Older checkpoints name shared experts otherwise, in their patterns too.
        excluded = [newest(pattern) for pattern in excluded]
        formats = {
            name: default for name in names if not any(fnmatchcase(name, pattern) for pattern in excluded)
        }
    return tuple(
        # What neither file names is not quantized.
        {linear: formats.get(name_of(layer, linear), UNQUANTIZED) for linear in sources}
        for layer in range(num_layers)
    )


def _each(path: Path, names: set[str]) -> dict[str, LinearFormat]:
    if not path.is_file():
        raise SourceError(f"{path}: missing, and config.json says {MIXED}; convert the checkpoint again")
    blocks: dict[str, Any] = json.loads(path.read_text())["quantized_layers"]
    layers = {newest(name): block for name, block in blocks.items()}
    # A misspelt name would leave its linear unquantized without a word.
    if unknown := sorted(layers.keys() - names):
        raise SourceError(
            f"{path}: the model has no linear {unknown[0]}; linears are named like {min(names)}"
        )
    return {name: _format(block, f"{path}: {name}") for name, block in layers.items()}


def _format(block: Mapping[str, Any], where: str) -> LinearFormat:
    algorithm = block.get("quant_algo")
    if algorithm is None:
        return UNQUANTIZED
    if algorithm not in ALGORITHMS:
        names = ", ".join(ALGORITHMS)
        raise SourceError(f"{where}: quant_algo {algorithm!r} is not built by backend aoti; have {names}")
    fmt = FORMATS[ALGORITHMS[algorithm]]
    if fmt.name == "int4_awq" and not block.get("pre_quant_scale", True):
        fmt = FORMATS["int4_wo"]  # TensorRT-LLM has one name for int4 blocks, smoothed or not
    return LinearFormat(fmt.name, (block.get("group_size") or fmt.block_size) if fmt.block_size else 0)


def kv_cache_of(quantization: Mapping[str, Any]) -> str:
    """Reads the KV cache's type; SourceError for one that this backend does not build."""
    algorithm = quantization.get("kv_cache_quant_algo")
    if algorithm not in KV_CACHES:
        names = ", ".join(name for name in KV_CACHES if name)
        raise SourceError(
            f"config.json: kv_cache_quant_algo {algorithm!r} is not built by backend aoti; have {names}"
        )
    return KV_CACHES[algorithm]


def differences(
    linears: tuple[Mapping[str, LinearFormat], ...],
    precision: Precision,
    sources: Mapping[str, str] = LINEARS,
) -> Iterator[tuple[str, str, str]]:
    """Yields linears whose format is not what a recipe asks: name, format found, format asked for."""
    for number, layer in enumerate(linears):
        for linear, fmt in layer.items():
            # A recipe's rules match the source model's names, not those of rank files.
            expected = precision.of(f"model.layers.{number}.{sources[linear]}").name
            if expected != fmt.format:
                yield name_of(number, linear), fmt.format, expected
