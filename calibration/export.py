"""Writes a calibrated model as a checkpoint in the unified Hugging Face layout, from the source's files."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import modelopt
import torch

from calibration.coverage import SOURCE, Linear, document, require
from calibration.errors import QuantizationIncomplete
from calibration.layout import (
    COPIED_FILES,
    TIED_HEAD,
    Group,
    config_block,
    excluded,
    groups,
    may_be_left_out,
    quantization_block,
)
from calibration.scales import Measured, agreed, folded_norm, found_format, measured, quantized
from calibration.source import Source
from calibration.writer import CheckpointWriter
from recipes.formats import Format

Progress = Callable[[int, int, str], None]

EMBEDDING = "model.embed_tokens"
"""Not a linear, but ModelOpt lists it among the modules left alone."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that writing needs to know of a calibrated model, which can then be freed."""

    fmt: Format
    dtype: torch.dtype
    parameters: frozenset[str]
    """Names of the tensors that a checkpoint of the model holds."""
    linears: Mapping[str, Linear]
    """Every linear by name, without its scales."""
    measured: Mapping[str, Measured]
    """What each linear to be quantized is quantized with."""
    groups: Sequence[Group]
    tied: bool
    """Whether the head shares the embedding's weight."""

    @property
    def folded(self) -> dict[str, torch.Tensor]:
        """Norm weight -> smoothing factors [I] that are folded into it."""
        firsts = ((group.norm, self.measured.get(group.linears[0], Measured())) for group in self.groups)
        return {f"{norm}.weight": f.shared for norm, f in firsts if f.folded and f.shared is not None}


def linear_modules(model: Any) -> dict[str, Any]:
    """Every linear of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def find(model: Any, parameters: frozenset[str], fmt: Format, rules: Sequence[Mapping[str, Any]]) -> Findings:
    """Reads what calibration found out of a model; `parameters` are its tensors before calibration.

    Raises QuantizationIncomplete when quantizers are not set as the preset's `rules` intend.
    """
    linears, found = {}, {}
    for name, module in linear_modules(model).items():
        linears[name] = _intention(name, module, fmt, rules)
        if linears[name].actual == fmt.name:
            found[name] = measured(name, module, fmt)
    require(tuple(linears.values()))
    tied = bool(model.config.tie_word_embeddings)
    fused = groups(model.config.num_hidden_layers)
    return Findings(
        fmt=fmt,
        dtype=model.dtype,
        parameters=parameters - {TIED_HEAD} if tied else parameters,
        linears=linears,
        measured=agreed(found, fused, fmt) if found else {},
        groups=fused,
        tied=tied,
    )


def _intention(name: str, module: Any, fmt: Format, rules: Sequence[Mapping[str, Any]]) -> Linear:
    """What is wanted for one linear, and what its quantizers are set to."""
    if not fmt.modelopt_cfg:
        return Linear(module=name, intended=SOURCE, actual=SOURCE, reason=f"format {fmt.name}")
    if excluded(name, rules):
        reason = f"excluded by the preset {fmt.modelopt_cfg}"
        return Linear(module=name, intended=SOURCE, actual=found_format(module), reason=reason)
    return Linear(module=name, intended=fmt.name, actual=found_format(module))


def write(source: Source, findings: Findings, out: Path, progress: Progress) -> None:
    """Writes tensors, configuration, tokenizer files and coverage.json.

    Raises QuantizationIncomplete for a bad scale and for tensors that are missing or belong nowhere.
    """
    linears, left_out = write_tensors(source, findings, CheckpointWriter(out), progress)
    require(linears)
    config = dict(source.config)
    if findings.measured:
        left = [EMBEDDING, *(linear.module for linear in linears if linear.actual == SOURCE)]
        quantization = quantization_block(findings.fmt, modelopt.__version__, left)
        _write_json(out / "hf_quant_config.json", quantization)
        config["quantization_config"] = config_block(quantization)
    _write_json(out / "config.json", config)
    _write_json(out / "coverage.json", document(findings.fmt.name, linears, left_out))
    for name in COPIED_FILES:
        if (source.root / name).is_file():
            shutil.copyfile(source.root / name, out / name)


def write_tensors(
    source: Source, findings: Findings, writer: CheckpointWriter, progress: Progress
) -> tuple[list[Linear], dict[str, str]]:
    """Writes every tensor; returns the linears with their scales, and tensors left out with the reason."""
    linears, left_out = dict(findings.linears), dict[str, str]()
    missing, total = set(findings.parameters), len(source.files)
    folded = findings.folded
    for done, (name, tensor) in enumerate(source.tensors()):
        progress(done, total, "tensors")
        if name not in findings.parameters:
            left_out[name] = _reason(name, tied=findings.tied)
            continue
        missing.discard(name)
        value = tensor.to(findings.dtype) if tensor.is_floating_point() else tensor
        module = name.removesuffix(".weight")
        if module in findings.measured:
            parts = quantized(value, findings.fmt, findings.measured[module])
            linears[module] = _with_scales(linears[module], value, parts)
            for part, made in parts.items():
                writer.add(f"{module}.{part}", made)
        else:
            writer.add(name, folded_norm(value, folded[name]) if name in folded else value)
    if missing:
        raise QuantizationIncomplete(f"the source lacks tensors of the model: {', '.join(sorted(missing))}")
    writer.close()
    progress(total, total, "tensors")
    return list(linears.values()), left_out


def _reason(name: str, *, tied: bool) -> str:
    """Why a source tensor is left out; raises QuantizationIncomplete when there is no reason."""
    reason = may_be_left_out(name, tied=tied)
    if not reason:
        raise QuantizationIncomplete(
            f"source tensor {name} belongs to no module of the model; this layout is not supported"
        )
    return reason


def _with_scales(linear: Linear, weight: torch.Tensor, parts: Mapping[str, torch.Tensor]) -> Linear:
    """The linear with the ranges of the scales that were written for it."""
    scales = {
        part: (float(value.float().min()), float(value.float().max()))
        for part, value in parts.items()
        if part != "weight"
    }
    scale = parts["weight_scale"]
    if not scale.dim():
        return replace(linear, scales=scales)
    covered = weight.reshape(*scale.shape, -1)
    return replace(linear, scales=scales, zero_scales=int((covered == 0).all(dim=-1).sum()))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
