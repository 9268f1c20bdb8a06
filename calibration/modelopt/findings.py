"""Reads the formats and measurements of ModelOpt's calibration from its quantizers."""

# I: input channels

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from calibration.errors import QuantizationIncomplete
from calibration.formats.scales import Measured, agreed
from calibration.model.linears import layout
from calibration.quantize.assignment import reason_left
from calibration.quantize.checkpoint_export import Findings
from calibration.quantize.coverage import SOURCE, Linear, require
from calibration.quantize.derive import KV_BOUNDS, KvCache, smoothquant_factors
from recipes.formats import FORMATS, Format
from recipes.precision import Precision

MODELOPT_BITS = {"source": None, "float8_e4m3fn": (4, 3), "int8": 8, "int4": 4}

KV_TYPES = {"fp8": "float8_e4m3fn", "int8": "int8"}

E4M3_BITS = (4, 3)
"""How ModelOpt spells e4m3: bits of exponent and mantissa."""

Maxima = Mapping[str, torch.Tensor]
"""Linear -> largest weight magnitude of each input channel [I], before calibration changes the weights."""


def linear_modules(model: Any) -> dict[str, Any]:
    """Every linear of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def weight_maxima(model: Any, fmt: Format) -> dict[str, torch.Tensor]:
    """Weight maxima [I] per linear for smoothed formats, on the CPU, before calibration changes weights."""
    modules = linear_modules(model) if fmt.smoothed else {}
    return {name: linear.weight.detach().abs().amax(dim=0).cpu() for name, linear in modules.items()}


def find(model: Any, precision: Precision, maxima: Maxima, alpha: float) -> Findings:
    """Read formats and measurements from a calibrated model; `alpha` is SmoothQuant's.

    QuantizationIncomplete where the quantizers are not set as the recipe's precision intends.
    """
    linears, measurements = {}, {}
    for name, module in linear_modules(model).items():
        fmt = precision.of(name)
        actual, reason = actual_format(module), reason_left(precision, name)
        linears[name] = Linear(
            module=name, intended=SOURCE if reason else fmt.name, actual=actual, reason=reason
        )
        if actual == fmt.name:
            # Only where the settings are as intended; `require` below reports all the others at once.
            measurements[name] = measured(name, module, fmt, maxima.get(name), alpha)
    require(tuple(linears.values()))
    return Findings(
        precision=precision,
        linears=linears,
        measured=agreed(measurements, layout(model.config.to_dict()).groups()),
        kv_cache=read_kv_cache(model),
    )


def actual_format(linear: Any) -> str:
    """Name of the format that a linear's quantizers are set to; a description of other settings."""
    weights, inputs = _stages(linear.weight_quantizer), linear.input_quantizer
    first, second = weights[0], weights[1:]
    actual = (
        first.num_bits if first.is_enabled else None,
        _granularity(first) if first.is_enabled else ("none", 0),
        inputs.num_bits if inputs.is_enabled else None,
        _ranges(inputs),
        inputs.pre_quant_scale is not None,
        [quantizer.num_bits for quantizer in second if quantizer.is_enabled],
    )
    for fmt in FORMATS.values():
        expected = (
            MODELOPT_BITS[fmt.weight],
            (fmt.granularity, fmt.block_size),
            MODELOPT_BITS[fmt.activation],
            fmt.input_scale,
            fmt.smoothed,
            [E4M3_BITS] if fmt.two_level else [],
        )
        if actual == expected:
            return SOURCE if fmt.weight == "source" else fmt.name
    return (
        f"weights {actual[0]} per {actual[1]}, then {actual[5]}, "
        f"inputs {actual[2]} {actual[3]}, smoothed {actual[4]}"
    )


def _stages(quantizer: Any) -> list[Any]:
    """The quantizers that a weight passes through one after another."""
    return list(quantizer) if isinstance(quantizer, Iterable) else [quantizer]


def _ranges(quantizer: Any) -> str:
    if not quantizer.is_enabled:
        return "none"
    return "dynamic" if quantizer._dynamic else "static"


def _granularity(quantizer: Any) -> tuple[str, int]:
    """Granularity of scales, and the block size or 0."""
    if quantizer.block_sizes:
        return "block", quantizer.block_sizes[-1]
    return ("tensor", 0) if quantizer.axis is None else ("channel", 0)


def measured(name: str, linear: Any, fmt: Format, maxima_I: torch.Tensor | None, alpha: float) -> Measured:
    """Copies a calibrated linear's measurements to the CPU."""
    inputs = linear.input_quantizer
    return Measured(
        fmt=fmt,
        weight_amax=_cpu(linear.weight_quantizer.amax) if fmt.granularity == "tensor" else None,
        weight_in_amax=maxima_I if fmt.two_level else None,
        input_amax=_cpu(inputs.amax) if fmt.input_scale == "static" else None,
        smoothing=_smoothing(name, linear, maxima_I, alpha) if fmt.smoothed else None,
        shared=_cpu(inputs.pre_quant_scale) if fmt.smoothed else None,
    )


def _cpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
    # A clone: on a CPU, `cpu()` returns the quantizer's own tensor, not a copy.
    return None if tensor is None else tensor.detach().cpu().clone()


def _smoothing(name: str, linear: Any, maxima_I: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """Smoothing factors in float32, of which ModelOpt keeps only a copy rounded to the model's dtype.

    Raises QuantizationIncomplete when they do not round to that copy.
    """
    search = getattr(linear, "awq_lite", None)
    if search is None:
        assert maxima_I is not None
        amax_I = linear.input_quantizer._amax_for_smoothing.flatten().float()
        factors_I = smoothquant_factors(amax_I, maxima_I, alpha)
    elif search.best_scale is None:
        raise QuantizationIncomplete(f"{name}: no calibration token reached it; give more varied data")
    else:
        # ModelOpt's scale divides the inputs; the factors here multiply them.
        factors_I = (1.0 / search.best_scale).float().cpu()
    rounded_I = linear.input_quantizer.pre_quant_scale.cpu()
    # Compared exactly: any difference means that the formula above is not this ModelOpt's.
    if not torch.equal(factors_I.to(rounded_I.dtype), rounded_I):
        raise QuantizationIncomplete(
            f"{name}: its smoothing factors do not round to ModelOpt's own; this ModelOpt is not supported"
        )
    smoothing: torch.Tensor = factors_I
    return smoothing


def read_kv_cache(model: Any) -> KvCache:
    """The KV cache's type and scales, as the attention's quantizers were set and calibrated."""
    types = {MODELOPT_BITS[stored]: name for name, stored in KV_TYPES.items()}
    scales, kv_type = {}, "auto"
    for name, module in model.named_modules():
        for kind in "kv":
            quantizer = getattr(module, f"{kind}_bmm_quantizer", None)
            if quantizer is not None and quantizer.is_enabled:
                kv_type = types[quantizer.num_bits]
                amax = quantizer.amax.detach().cpu().float()
                scales[f"{name}.{kind}_proj.{kind}_scale"] = amax / KV_BOUNDS[kv_type]
    return KvCache(kv_type, scales)
