"""The coverage of a quantized checkpoint: every linear is quantized as intended, or has a reason."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.errors import QuantizationIncomplete

Range = tuple[float, float]
"""Smallest and largest value of a scale."""

SOURCE = "source"
"""Format of a linear that keeps the source dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """The intended and the actual format of one linear."""

    module: str
    intended: str
    """Format by name, or `source`."""
    actual: str
    """Format that the quantizers are set to, or `source`."""
    reason: str = ""
    """Why it keeps the source dtype; empty when it is quantized."""
    scales: Mapping[str, Range] = field(default_factory=dict)
    """Scale name -> smallest and largest value."""
    zero_scales: int = 0
    """Weight scales of channels or blocks that hold only zeros: written as one."""


def problems(linears: Iterable[Linear]) -> list[str]:
    """Every deviation from the intended formats, one line per linear and problem."""
    problem_list = []
    for linear in linears:
        if linear.actual != linear.intended:
            problem_list.append(f"{linear.module}: {linear.actual} instead of {linear.intended}")
        if linear.actual == SOURCE and not linear.reason:
            problem_list.append(f"{linear.module}: keeps the source dtype for no known reason")
        problem_list += [
            f"{linear.module}: {name} ranges from {low} to {high}; every scale must be positive and finite"
            for name, (low, high) in linear.scales.items()
            if not (low > 0 and math.isfinite(high))
        ]
    return problem_list


def require(linears: Sequence[Linear]) -> None:
    """Raise QuantizationIncomplete, with every deviation, if there is one."""
    problem_list = problems(linears)
    if problem_list:
        raise QuantizationIncomplete(
            "the checkpoint is not quantized as intended:\n" + "\n".join(f"  {line}" for line in problem_list)
        )


def document(
    format_: str | Mapping[str, Any],
    linears: Sequence[Linear],
    left_out: Mapping[str, str],
    kv_cache: Mapping[str, Any],
) -> dict[str, Any]:
    """Contents of coverage.json.

    `format_` is the recipe's format, `left_out` maps source tensors that were not written to the reason,
    `kv_cache` tells the cache's type and its scales by tensor name.
    """
    quantized = sum(linear.actual != SOURCE for linear in linears)
    return {
        "format": format_,
        "linears": len(linears),
        "quantized": quantized,
        "left": len(linears) - quantized,
        "modules": [asdict(linear) for linear in linears],
        "kv_cache": dict(kv_cache),
        "source_tensors_left_out": dict(left_out),
    }
