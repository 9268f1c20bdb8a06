"""Writes a quantized checkpoint in the unified Hugging Face layout, from the source's files, in a stream."""

import json
from collections.abc import Mapping, Sequence
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
from calibration.step_progress import Progress
from calibration.tokenizer_files import copy_tokenizer
from recipes.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that writing needs: the intended formats, and the measurements."""

    precision: Precision
    linears: Mapping[str, Linear]
    """Every linear by name, in the model's order, without its scales."""
    measured: Mapping[str, Measured]
    """Measurements of each linear to quantize."""
    kv_cache: KvCache = field(default_factory=KvCache)


@dataclass(frozen=True, slots=True)
class _WriteReport:
    """Account of the written tensors."""

    linears: dict[str, Linear]
    left_out: dict[str, str]
    """Source tensor that was not written -> reason."""


def write(source: Source, findings: Findings, out: Path, progress: Progress) -> None:
    """Write tensors, configuration, tokenizer files and coverage.json.

    CheckpointError for tensors that are not finite or do not fit the format, QuantizationIncomplete for a
    bad scale. The plan has checked that the source has all tensors of the model.
    """
    with CheckpointWriter(out) as writer:
        written = _write_tensors(source, findings, writer, progress)
    progress(len(source.files), len(source.files), "tensors")
    linears = list(written.linears.values())
    # Before any configuration is written: an incomplete checkpoint must not look like a whole one.
    require(linears)
    config, kv_cache = dict(source.config), findings.kv_cache
    if findings.measured or kv_cache.scales:
        formats = {
            name: findings.measured[name].fmt for name in findings.linears if name in findings.measured
        }
        unquantized = [EMBEDDING, *(linear.module for linear in linears if linear.actual == SOURCE)]
        quantization = quantization_block(modelopt.__version__, formats, unquantized, kv_cache.type)
        _write_json(out / "hf_quant_config.json", quantization)
        config["quantization_config"] = config_block(quantization)
    _write_json(out / "config.json", config)
    cache = {"type": kv_cache.type, "scales": {name: float(scale) for name, scale in kv_cache.scales.items()}}
    _write_json(
        out / "coverage.json", document(findings.precision.as_param(), linears, written.left_out, cache)
    )
    copy_tokenizer(source.root, out)


def _write_tensors(
    source: Source, findings: Findings, writer: CheckpointWriter, progress: Progress
) -> _WriteReport:
    names, tied, total = layout(source.config), is_tied(source.config), len(source.files)
    folded = _folded_norms(names.groups(), findings.measured)
    written = _WriteReport(dict(findings.linears), {})
    for done, (name, tensor) in enumerate(source.tensors()):
        progress(done, total, "tensors")
        if reason := left_out(name, tied=tied):
            written.left_out[name] = reason
            continue
        source.require_finite(name, tensor)
        value, module = tensor.to(source.dtype), name.removesuffix(".weight")
        # `removesuffix` returns a bias unchanged.
        if module != name and module in findings.measured:
            # On the CPU: the key does not name a device, and quotients on a GPU have been seen to differ.
            tensors = _quantize_linear(module, value, findings.measured[module])
            written.linears[module] = _with_scales(findings.linears[module], value, tensors)
        elif name in folded:
            tensors = {name: folded_norm(value, folded[name])}
        else:
            tensors = {name: value}
        for part, tensor in tensors.items():
            writer.add(part, tensor)
    for part, scale in findings.kv_cache.scales.items():
        writer.add(part, scale)
    # The plan has compared the names: only a tied head may have no tensor of its own.
    assert {f"{name}.weight" for name in findings.linears} - source.files.keys() <= {TIED_HEAD}
    return written


def _quantize_linear(module: str, weight: torch.Tensor, measurement: Measured) -> dict[str, torch.Tensor]:
    """The tensors that replace a linear's weight, by full name."""
    try:
        parts = quantized(weight, measurement)
    except CheckpointError as exc:
        raise CheckpointError(f"{module}: {exc}") from None
    return {f"{module}.{part}": tensor for part, tensor in parts.items()}


def _folded_norms(fused: Sequence[Group], measured: Mapping[str, Measured]) -> dict[str, torch.Tensor]:
    """Norm weight -> smoothing factors [I] that are folded into it."""
    # The linears of a group share their factors, so the first one speaks for all.
    firsts = ((group.norm, measured.get(group.linears[0])) for group in fused)
    return {f"{norm}.weight": f.shared for norm, f in firsts if f and f.folded and f.shared is not None}


def _with_scales(linear: Linear, weight: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> Linear:
    """The linear with the ranges of the scales that were written for it."""
    parts = {name.removeprefix(f"{linear.module}."): tensor for name, tensor in tensors.items()}
    scale = parts["weight_scale"]
    scales = {
        part: (float(value.float().min()), float(value.float().max()))
        for part, value in parts.items()
        if part != "weight"
    }
    if not scale.dim():
        return replace(linear, scales=scales)
    # The weights that one scale covers: a row, or a block of it.
    covered = weight.reshape(*scale.shape, -1)
    return replace(linear, scales=scales, zero_scales=int((~covered.any(dim=-1)).sum()))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
