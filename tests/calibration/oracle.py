"""ModelOpt's own calibration and Hugging Face export of a model: what derived checkpoints are compared with."""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.model_calib import apply_pre_quant_scale_and_smooth

from calibration.model.checkpoint_reader import Source
from calibration.model.linears import Layout, layout
from calibration.modelopt.calibrate import KV_BITS, calibrate, load
from calibration.quantize.assignment import assign_formats
from calibration.statistics.statistics_artifact import Statistics
from recipes.precision import Precision


def export(model: Any, out: Path) -> Path:
    """Writes ModelOpt's checkpoint of a calibrated model, which it changes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)  # its own code
        export_hf_checkpoint(model, export_dir=out)
    return out


def rules(precision: Precision, kv_type: str, names: Layout) -> list[dict[str, Any]]:
    """Rules that give each linear its own format, taken from the presets."""
    made: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name, fmt in assign_formats(precision, names).items():
        preset = copy.deepcopy(getattr(mtq, fmt.modelopt_cfg))["quant_cfg"] if fmt.modelopt_cfg else []
        made += [
            rule | {"quantizer_name": rule["quantizer_name"].replace("*", f"{name}.")}
            for rule in preset
            if rule["quantizer_name"] in ("*weight_quantizer", "*input_quantizer")
        ]
    if kv_type != "auto":
        cfg = {"num_bits": KV_BITS[kv_type], "axis": None}
        made.append({"quantizer_name": "*[kv]_bmm_quantizer", "cfg": cfg})
    return made


def calibrated(checkpoint: Path, tokens: torch.Tensor, params: Mapping[str, Any], *, batch_size: int) -> Any:
    """The model of a checkpoint after ModelOpt's calibration; AWQ's search is left out."""
    model = load(Source.open(checkpoint))
    precision, names = Precision.parse(params["format"]), layout(model.config.to_dict())
    algorithm: dict[str, Any] = {"method": "max"}
    if any(fmt.smoothing == "alpha" for fmt in precision.formats):
        algorithm = {"method": "smoothquant", "alpha": params["smoothing"]}
    quant_cfg = rules(precision, params.get("kv_cache", "auto"), names)
    calibrate(model, {"quant_cfg": quant_cfg, "algorithm": algorithm}, tokens, batch_size, lambda *_: None)
    return model


def smooth(model: Any, statistics: Statistics) -> None:
    """Applies recorded AWQ factors to a calibrated model with ModelOpt's own arithmetic."""
    for name, linear in model.named_modules():
        if f"{name}.awq_smoothing" in statistics.places:
            linear.input_quantizer._amax_for_smoothing = statistics.tensor(f"{name}.input_amax")
            apply_pre_quant_scale_and_smooth(linear, statistics.tensor(f"{name}.awq_smoothing"))
