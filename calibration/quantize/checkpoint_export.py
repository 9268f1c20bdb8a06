"""Writes a quantized checkpoint in the unified Hugging Face layout, from the source's files, in a stream."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import modelopt
import torch

from calibration.errors import CheckpointError
from calibration.formats.scales import Measured, folded_norm, quantized
from calibration.model.checkpoint_reader import Source
from calibration.model.checkpoint_writer import CheckpointWriter
from calibration.model.linears import (
    EMBEDDING,
    TIED_HEAD,
    Group,
    is_tied,
    layout,
    left_out,
)
from calibration.quantize.coverage import SOURCE, Linear, document, require
from calibration.quantize.derive import KvCache
from calibration.quantize.quantization_config import config_block, quantization_block
from calibration.tokenizer_files import copy_tokenizer
from recipes.precision import Precision

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that writing needs to know: what is wanted, and what was measured for it."""

    precision: Precision
    linears: Mapping[str, Linear]
    """Every linear by name, in the model's order, without its scales."""
    measured: Mapping[str, Measured]
    """What each linear to be quantized is quantized with."""
    kv_cache: KvCache = field(default_factory=KvCache)


@dataclass(frozen=True, slots=True)
class _Written:
    """Accounts of what was written."""

    linears: dict[str, Linear]
    left_out: dict[str, str]
    """Source tensor that was not written -> reason."""


def write(source: Source, findings: Findings, out: Path, progress: Progress) -> None:
    """Writes tensors, configuration, tokenizer files and coverage.json.

    Raises CheckpointError for tensors that are not finite or do not fit the format, and
    QuantizationIncomplete for a bad scale. That the source holds the model's tensors, plan has seen.
    """
    with CheckpointWriter(out) as writer:
        written = _write_tensors(source, findings, writer, progress)
    progress(len(source.files), len(source.files), "tensors")
    linears = list(written.linears.values())
    require(linears)
    config, kv_cache = dict(source.config), findings.kv_cache
    if findings.measured or kv_cache.scales:
        formats = {
            name: findings.measured[name].fmt for name in findings.linears if name in findings.measured
        }
        left = [EMBEDDING, *(linear.module for linear in linears if linear.actual == SOURCE)]
        quantization = quantization_block(modelopt.__version__, formats, left, kv_cache.type)
        _write_json(out / "hf_quant_config.json", quantization)
        config["quantization_config"] = config_block(quantization)
    _write_json(out / "config.json", config)
    kv = {"type": kv_cache.type, "scales": {name: float(scale) for name, scale in kv_cache.scales.items()}}
    _write_json(out / "coverage.json", document(findings.precision.as_param(), linears, written.left_out, kv))
    copy_tokenizer(source.root, out)


def _write_tensors(
    source: Source, findings: Findings, writer: CheckpointWriter, progress: Progress
) -> _Written:
    names, tied, total = layout(source.config), is_tied(source.config), len(source.files)
    folded = _folded(names.groups(), findings.measured)
    written = _Written(dict(findings.linears), {})
    for done, (name, tensor) in enumerate(source.tensors()):
        progress(done, total, "tensors")
        if why := left_out(name, tied=tied):
            written.left_out[name] = why
            continue
        source.require_finite(name, tensor)
        value, module = tensor.to(source.dtype), name.removesuffix(".weight")
        if module != name and module in findings.measured:
            # On the CPU: the key does not say where, and quotients of a GPU were seen to differ.
            made = _quantized(module, value, findings.measured[module])
            written.linears[module] = _with_scales(findings.linears[module], value, made)
        elif name in folded:
            made = {name: folded_norm(value, folded[name])}
        else:
            made = {name: value}
        for part, tensor in made.items():
            writer.add(part, tensor)
    for part, scale in findings.kv_cache.scales.items():
        writer.add(part, scale)
    assert {f"{name}.weight" for name in findings.linears} - source.files.keys() <= {TIED_HEAD}
    return written


def _quantized(module: str, weight: torch.Tensor, found: Measured) -> dict[str, torch.Tensor]:
    """What replaces a linear's weight, by full name."""
    try:
        parts = quantized(weight, found)
    except CheckpointError as exc:
        raise CheckpointError(f"{module}: {exc}") from None
    return {f"{module}.{part}": tensor for part, tensor in parts.items()}


def _folded(fused: Sequence[Group], measured: Mapping[str, Measured]) -> dict[str, torch.Tensor]:
    """Norm weight -> smoothing factors [I] that are folded into it."""
    firsts = ((group.norm, measured.get(group.linears[0])) for group in fused)
    return {f"{norm}.weight": f.shared for norm, f in firsts if f and f.folded and f.shared is not None}


def _with_scales(linear: Linear, weight: torch.Tensor, made: Mapping[str, torch.Tensor]) -> Linear:
    """The linear with the ranges of the scales that were written for it."""
    parts = {name.removeprefix(f"{linear.module}."): tensor for name, tensor in made.items()}
    scale = parts["weight_scale"]
    scales = {
        part: (float(value.float().min()), float(value.float().max()))
        for part, value in parts.items()
        if part != "weight"
    }
    if not scale.dim():
        return replace(linear, scales=scales)
    covered = weight.reshape(*scale.shape, -1)
    return replace(linear, scales=scales, zero_scales=int((~covered.any(dim=-1)).sum()))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
