"""Derives the measurements for every format from recorded statistics, without the model's tensors.

The formulas are ModelOpt 0.47's, each computed in the dtype that ModelOpt computes it in, so that scales are
the same bits as those of its own calibration on the same data. Key and value scales are those that its
Hugging Face export writes: amax / 448 without a lower limit (its TensorRT-LLM export raises them to 1.0).
ModelOpt has no preset for an int8 cache; its scales follow the same pattern with amax / 127.
"""

# I: input channels

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from calibration.errors import CheckpointError, QuantizationIncomplete
from calibration.formats.scales import FP8_E4M3_MAX, INT8_MAX, Measured, agreed
from calibration.model.linears import Layout
from calibration.statistics.statistics_artifact import Statistics
from recipes.formats import EXPERT_REFUSALS, Format

SMOOTHING_RANGE = (1e-4, 1e4)
"""Range of the factors of ModelOpt's SmoothQuant."""
SILENT = 2.0**-31
"""Magnitude up to which SmoothQuant treats inputs as zero."""
KV_BOUNDS = {"fp8": FP8_E4M3_MAX, "int8": INT8_MAX}
"""KV cache type -> magnitude that the largest key or value is mapped to."""
SHOWN = 5
"""Most experts that a message names."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """Type of the KV cache and its scales."""

    type: str = "auto"
    """`auto` (the engine's own dtype), `fp8` or `int8`."""
    scales: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Tensor name -> scale, float32, 0-d; e.g. `model.layers.0.self_attn.k_proj.k_scale`."""


def measured(
    statistics: Statistics | None, formats: Mapping[str, Format], layout: Layout, *,
    dtype: torch.dtype, alpha: float,
) -> dict[str, Measured]:  # fmt: skip
    """The measurements of each linear in `formats`, except those with the format `none`.

    `dtype` is the model's; `alpha` is SmoothQuant's share of the input ranges that moves into the weights.
    Statistics may be None where no format needs them. CheckpointError where they lack a tensor,
    QuantizationIncomplete for unusable values, for different formats in a fused group, and for an expert with
    rounded inputs that no token reached.
    """
    _require_expert_formats(formats, layout)
    _require_tokens(statistics, formats, layout)
    measurements = {
        name: _linear(statistics, name, fmt, dtype=dtype, alpha=alpha)
        for name, fmt in formats.items()
        if fmt.weight != "source"
    }
    return agreed(measurements, layout.groups(), layout.stacks())


def _require_expert_formats(formats: Mapping[str, Format], layout: Layout) -> None:
    for name, fmt in formats.items():
        if fmt.name in EXPERT_REFUSALS and layout.in_experts(name):
            raise QuantizationIncomplete(
                f"{name}: {fmt.name} is not built for experts: {EXPERT_REFUSALS[fmt.name]}; choose another"
            )


def _require_tokens(statistics: Statistics | None, formats: Mapping[str, Format], layout: Layout) -> None:
    """Raise QuantizationIncomplete for experts without calibration tokens: their ranges are unknown."""
    stacked = [name for stack in layout.stacks() for name in stack]
    unreached = [
        name
        for name in stacked
        if statistics is not None
        and name in formats
        and formats[name].calibrated
        and f"{name}.input_amax" not in statistics.places
    ]
    if unreached:
        experts = list(dict.fromkeys(name.rpartition(".")[0] for name in unreached))
        more = f" and {len(experts) - SHOWN} more" if len(experts) > SHOWN else ""
        raise QuantizationIncomplete(
            f"{', '.join(experts[:SHOWN])}{more}: no calibration token reached these experts, so that "
            "their input ranges are unknown; calibrate with more or other data, or choose int8_wo or int4_wo"
        )


def _linear(
    statistics: Statistics | None, name: str, fmt: Format, *, dtype: torch.dtype, alpha: float
) -> Measured:
    if not fmt.calibrated:
        return Measured(fmt=fmt)
    if statistics is None:
        raise CheckpointError(f"{name}: {fmt.name} has calibrated scales; give the statistics of the model")
    # In the model's dtype, in which ModelOpt has these maxima.
    weight_in_amax_I = _read(statistics, f"{name}.weight_in_amax").to(dtype)
    input_amax_I = _read(statistics, f"{name}.input_amax").to(dtype)
    weight_amax_O = _read(statistics, f"{name}.weight_amax")
    factors_I = None
    if fmt.smoothing == "alpha":
        factors_I = smoothquant_factors(input_amax_I, weight_in_amax_I, alpha)
    elif fmt.smoothing == "search":
        factors_I = _factors(statistics, name)
    return Measured(
        fmt=fmt,
        channels=(len(weight_amax_O), len(input_amax_I)),
        weight_amax=weight_amax_O.max() if fmt.granularity == "tensor" else None,
        weight_in_amax=weight_in_amax_I if fmt.two_level else None,
        input_amax=smoothed_amax(input_amax_I, factors_I) if fmt.input_scale == "static" else None,
        smoothing=factors_I,
        shared=None if factors_I is None else factors_I.to(dtype),
    )


def smoothquant_factors(
    input_amax_I: torch.Tensor, weight_in_amax_I: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Factors [I] in float32, from the largest inputs and weights of each input channel in the model's dtype.

    A channel without any input and any weight gets one, where ModelOpt's formula is not a number.
    """
    input_amax_I = input_amax_I.float()
    factors_I = (weight_in_amax_I.pow(1 - alpha) / input_amax_I.pow(alpha)).float()
    # As ModelOpt has it: only if some factor vanishes are silent channels set to one.
    if factors_I.min() <= SILENT:
        factors_I[input_amax_I <= SILENT] = 1
    # 0 / 0 is the silent channel; an infinite factor is left to the clamp.
    return factors_I.nan_to_num(nan=1.0, posinf=torch.inf).clamp(*SMOOTHING_RANGE)


def smoothed_amax(input_amax_I: torch.Tensor, factors_I: torch.Tensor | None) -> torch.Tensor:
    """Largest input after smoothing, 0-d, rounded to the model's dtype."""
    if factors_I is None:
        return input_amax_I.max()
    # Rounded after the maximum: rounding keeps the order, so the result is the same as before it.
    return (input_amax_I * factors_I).max().to(input_amax_I.dtype)


def kv_cache(statistics: Statistics | None, kv_type: str, layout: Layout) -> KvCache:
    """Scales of every layer's keys and values; none for `auto`.

    Raises CheckpointError without statistics, QuantizationIncomplete for a layer without keys or values.
    """
    if kv_type == "auto":
        return KvCache()
    if statistics is None:
        raise CheckpointError(f"kv_cache {kv_type} has calibrated scales; give the statistics of the model")
    scales = {}
    for layer in range(layout.num_layers):
        attention = f"model.layers.{layer}.self_attn"
        for kind in ("key", "value"):
            # One scale per layer; the statistics are per head.
            amax = _read(statistics, f"{attention}.{kind}_amax").max()
            if amax == 0:
                raise QuantizationIncomplete(
                    f"{attention}.{kind}_amax is zero: no scale fits; check the checkpoint and the data"
                )
            scales[f"{attention}.{kind[0]}_proj.{kind[0]}_scale"] = amax.float() / KV_BOUNDS[kv_type]
    return KvCache(kv_type, scales)


def _factors(statistics: Statistics, name: str) -> torch.Tensor:
    factors_I = _read(statistics, f"{name}.awq_smoothing").float()
    if not (factors_I > 0).all():
        raise QuantizationIncomplete(
            f"{name}.awq_smoothing: {int((factors_I <= 0).sum())} factors are not positive; "
            "record the statistics again"
        )
    return factors_I


def _read(statistics: Statistics, name: str) -> torch.Tensor:
    """A recorded tensor of finite values."""
    tensor = statistics.tensor(name)
    if not torch.isfinite(tensor).all():
        raise QuantizationIncomplete(
            f"{name}: {int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} recorded values are NaN or "
            "infinite; check the checkpoint's dtype and the data"
        )
    return tensor
