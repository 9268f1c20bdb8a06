"""Checks the statistics of each layer, and ends the pass for unusable ones with the module's name."""

from collections.abc import Collection, Mapping

import torch

from calibration.errors import ActivationsUnusable, CheckpointError

FLOAT16_MAX = 65504.0
"""Largest float16: engines that compute in float16 overflow above it, though bfloat16 (3.4e38) does not."""
EXPLODING = FLOAT16_MAX**2
"""Largest product of two float16 numbers. A down projection's input is such a product of two projections, the
largest that a working model forms; models that are trained in bfloat16 pass float16's range by small factors,
none by its square."""
DEAD_SHARE = 0.5
"""Largest share of a linear's input channels that may be zero for every token."""

FEW_TOKENS = 128
"""Tokens below which the ranges of an expert are reported as unreliable: the rows of a full sample."""
SHOWN = 5
"""Most experts that a message names."""


def examine(
    tensors: Mapping[str, torch.Tensor], linears: list[str], optional: Collection[str] = ()
) -> list[str]:
    """Warnings about one layer's statistics, on the host; `optional` linears may have seen no token.

    Raises CheckpointError for weights that are not finite, ActivationsUnusable for inputs that are not
    finite, explode, or are zero throughout; each names the module.
    """
    warnings = []
    for name in linears:
        if f"{name}.input_amax" not in tensors and name not in optional:
            raise ActivationsUnusable(
                f"{name}: no token reached it; calibrate with more or other data, or exclude the module"
            )
        if not tensors[f"{name}.weight_amax"].isfinite().all():
            raise CheckpointError(f"{name}: weights are NaN or infinite; get the checkpoint again")
        if f"{name}.input_amax" in tensors:
            warnings += _inputs(name, tensors[f"{name}.input_amax"])
    return warnings


def examine_experts(tokens: Mapping[str, int], *, required: bool) -> list[str]:
    """Warnings about experts of one layer that saw few tokens or none.

    Raises ActivationsUnusable that names experts without any, where every one's ranges are required.
    """
    # The fewest tokens first, since a message names only some.
    rare = sorted((num_tokens, name) for name, num_tokens in tokens.items() if num_tokens < FEW_TOKENS)
    unreached = [name for num_tokens, name in rare if not num_tokens]
    if unreached and required:
        raise ActivationsUnusable(
            f"{_listed(unreached)}: no token reached {len(unreached)} of {len(tokens)} experts, so that their"
            " input ranges are unknown; calibrate with more or other data, or choose int8_wo or int4_wo"
            " for experts"
        )
    if not rare:
        return []
    description = _listed([f"{name} ({num_tokens})" for num_tokens, name in rare])
    return [f"{len(rare)} of {len(tokens)} experts saw fewer than {FEW_TOKENS} tokens: {description}"]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _inputs(name: str, amax_I: torch.Tensor) -> list[str]:
    if not amax_I.isfinite().all():
        bad = int((~amax_I.isfinite()).sum())
        raise ActivationsUnusable(
            f"{name}: {bad} of {len(amax_I)} input channels are NaN or infinite; check the weights before it "
            "and the dtype in config.json"
        )
    largest, dead = float(amax_I.max()), int((amax_I == 0).sum())
    if largest > EXPLODING:
        raise ActivationsUnusable(
            f"{name}: inputs reach {largest:.3g}, above {EXPLODING:.3g}, which no working model forms; "
            "check the checkpoint and its config.json"
        )
    if dead > DEAD_SHARE * len(amax_I):
        raise ActivationsUnusable(
            f"{name}: {dead} of {len(amax_I)} input channels are zero for every token; no more than half may "
            "be; check the checkpoint, or calibrate with more data"
        )
    warnings = []
    if dead:
        warnings.append(f"{name}: {dead} of {len(amax_I)} input channels are zero for every token")
    if largest > FLOAT16_MAX:
        warnings.append(f"{name}: inputs reach {largest:.3g}; float16 ends at {FLOAT16_MAX:.0f}")
    return warnings
