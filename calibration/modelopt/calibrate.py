"""Calibrates through ModelOpt and writes the quantized checkpoint: step quantized_checkpoint.

Runs in a child process. ModelOpt measures; the bytes are written here, tensor by tensor from the source
files (calibration/formats/scales.py says where they equal ModelOpt's own export and where they do not).
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from calibration.errors import CheckpointError, QuantizationIncomplete
from calibration.formats.scales import require_whole_blocks
from calibration.model.checkpoint_reader import Source
from calibration.model.linears import Layout, attention, layout
from calibration.modelopt.findings import find, linear_modules, weight_maxima
from calibration.parameters import QuantizedJob
from calibration.quantize.assignment import assign_formats, reason_left
from calibration.quantize.checkpoint_export import write
from calibration.quantize.quantize import alpha_of
from calibration.step_progress import Progress
from recipes.formats import Format
from recipes.precision import Precision

FORWARD_PASSES = {"awq_lite": 2}
"""Algorithm -> passes over the calibration set, where not one."""

NOTHING = {"quant_cfg": [{"quantizer_name": "*", "enable": False}], "algorithm": "max"}
"""Configuration without quantized linears, to which a quantized KV cache can be added."""

KV_BITS = {"fp8": (4, 3), "int8": 8}


def build(job: QuantizedJob, progress: Progress) -> None:
    """Writes the quantized checkpoint of the input `source` and its coverage.json.

    CheckpointError for a source that cannot be quantized, QuantizationIncomplete for deviations from the
    intended formats.
    """
    inputs, precision, alpha = job.inputs, job.params.format, alpha_of(job.params)
    source = Source.open(inputs["source"])
    names = layout(source.config)
    if names.num_experts:
        raise CheckpointError(
            f"{source.root}: transformers fuses the experts of this model, so ModelOpt's own calibration "
            "cannot name them; use the method one_pass"
        )
    # Before the model is loaded: a bad tensor is found by name, not by its effects.
    source.check_finite(progress)
    model = load(source)
    require_blocks(model, precision)
    # Before the calibration, which smooths the weights in place.
    maxima = weight_maxima(model, one_format(precision))
    tokens_ST = load_tokens(inputs["calibration_set"]) if "calibration_set" in inputs else None
    settings = configuration(precision, job.params.kv_cache, alpha, names)
    calibrate(model, settings, tokens_ST, 1, progress)
    findings = find(model, precision, maxima, alpha)
    # Its memory goes first: writing reads the source again, tensor by tensor.
    del model
    write(source, findings, job.out, progress)


def one_format(precision: Precision) -> Format:
    """The one format that linears are quantized to; raises QuantizationIncomplete for several."""
    formats = [fmt for fmt in precision.formats if fmt.weight != "source"]
    if len(formats) > 1:
        names = ", ".join(fmt.name for fmt in formats)
        raise QuantizationIncomplete(
            f"ModelOpt's own calibration supports one format at a time, not {names}; use the method one_pass"
        )
    return formats[0] if formats else precision.default


def configuration(precision: Precision, kv_type: str, alpha: float, names: Layout) -> dict[str, Any]:
    """ModelOpt's preset for the format, with the recipe's exceptions, KV cache and SmoothQuant's alpha."""
    fmt = one_format(precision)
    preset = copy.deepcopy(
        getattr(mtq, fmt.modelopt_cfg) if fmt.modelopt_cfg else NOTHING
    )  # presets are shared
    algorithm, rules = _algorithm(preset, alpha), list(preset["quant_cfg"])
    rules += [
        {"quantizer_name": f"{name}.*_quantizer*", "enable": False}
        for name, fmt_ in assign_formats(precision, names).items()
        if fmt_.weight == "source"
    ]
    if kv_type != "auto":
        rules.append(
            {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": KV_BITS[kv_type], "axis": None}}
        )
    return {"quant_cfg": rules, "algorithm": algorithm}


def _algorithm(preset: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """The preset's algorithm with the settings that the recipe and the export need."""
    setting = preset["algorithm"]
    algorithm = {"method": setting} if isinstance(setting, str) else dict(setting)
    if algorithm["method"] == "awq_lite":
        algorithm["debug"] = True  # keeps the factors in float32, which the export needs
    if algorithm["method"] == "smoothquant":
        algorithm["alpha"] = alpha
    return algorithm


def load(source: Source) -> Any:
    """The model in its own dtype, on the GPU where there is one; its remote code is never run."""
    model = AutoModelForCausalLM.from_pretrained(
        source.root,
        dtype="auto",
        attn_implementation=attention(source.config),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load_tokens(calibration_set: Path) -> torch.Tensor:
    """Token sequences [S, T] of a calibration_set artifact."""
    tokens: torch.Tensor = load_file(calibration_set / "tokens.safetensors")["tokens"]
    return tokens.long()


def calibrate(
    model: Any,
    settings: Mapping[str, Any],
    tokens_ST: torch.Tensor | None,
    batch_size: int,
    progress: Progress,
) -> None:
    """Quantizes the model in place with ModelOpt's configuration, measuring on the tokens.

    Raises QuantizationIncomplete when activations are not finite.
    """
    done = 0

    def forward(model: Any) -> None:
        nonlocal done
        assert tokens_ST is not None
        total = tokens_ST.numel() * FORWARD_PASSES.get(settings["algorithm"]["method"], 1)
        for batch_BT in torch.split(tokens_ST, batch_size):
            progress(done, total, "tokens")
            # The base model ends before the head, which no preset quantizes: skipping it saves the logits.
            model.base_model(input_ids=batch_BT.to(model.device), use_cache=False)
            done += batch_BT.numel()
        progress(done, total, "tokens")

    try:
        with torch.no_grad():
            mtq.quantize(model, dict(settings), None if tokens_ST is None else forward)
    except AssertionError as exc:
        if "values in amax" not in str(exc):  # MaxCalibrator's words for NaN, infinity or a broken abs
            raise
        raise QuantizationIncomplete(
            "activations became NaN or infinite while calibrating; check the checkpoint's dtype and the data"
        ) from exc


def require_blocks(model: Any, precision: Precision) -> None:
    """Raises CheckpointError for a weight that the blocks of its format do not fit."""
    for name, linear in linear_modules(model).items():
        if not reason_left(precision, name):
            try:
                require_whole_blocks(tuple(linear.weight.shape), precision.of(name))
            except CheckpointError as exc:
                raise CheckpointError(f"{name}: {exc}") from None
