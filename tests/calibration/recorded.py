"""Statistics of a small model by the obvious way: the whole model at once, hooks on every linear, no cleverness.

The oracle for the layer-by-layer pass, and a quick way to a statistics artifact for other tests.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import DynamicCache

from calibration.model.linears import Layout, layout
from calibration.statistics.statistics_artifact import LAYOUT_VERSION, layer_file

ROWS = 128
AWQ_ALPHA = 0.5
"""Every linear gets this exponent: a valid outcome of a search, though not the best."""


def record(model: Any, tokens_ST: torch.Tensor, out: Path, *, batch_size: int, search: bool = True) -> Path:
    """Writes a statistics artifact for a transformers model of a known family."""
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n}
    inputs, attention = _seen(model, linears, tokens_ST.long().split(batch_size))
    num_layers = model.config.num_hidden_layers
    found = {name: _linear(linears[name].weight.detach(), torch.cat(x)) for name, x in inputs.items()}
    names = layout(model.config.to_dict())
    if search:
        _smooth(found, names)
    for group in names.groups():
        for name in group.linears[1:]:
            del found[name]["input_sample"]
    out.mkdir(parents=True, exist_ok=True)
    for number in range(num_layers):
        prefix = f"model.layers.{number}."
        own = [(n, fields) for n, fields in found.items() if n.startswith(prefix)]
        tensors = {f"{n}.{field}": t.contiguous() for n, fields in own for field, t in fields.items()}
        for kind in ("key", "value"):
            tensors[f"{prefix}self_attn.{kind}_amax"] = attention[f"{number}.{kind}"]
        save_file(tensors, out / layer_file(number))
    report = {"layout_version": LAYOUT_VERSION, "tokens": tokens_ST.numel(), "batch_size": batch_size}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return out


def _seen(
    model: Any, linears: Mapping[str, torch.nn.Module], batches: Sequence[torch.Tensor]
) -> tuple[dict[str, list[torch.Tensor]], dict[str, torch.Tensor]]:
    """All inputs of each linear, and the largest key and value magnitudes of each layer's heads."""
    inputs: dict[str, list[torch.Tensor]] = {}
    states: dict[str, list[torch.Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, n=name: inputs.setdefault(n, []).append(args[0].flatten(0, -2).cpu())
        )
        for name, module in linears.items()
    ]
    with torch.no_grad():
        for batch_BT in batches:
            cache = DynamicCache()  # of the configuration's own, sliding layers would forget
            model.base_model(input_ids=batch_BT, past_key_values=cache, use_cache=True)
            for number, layer in enumerate(cache.layers):  # [B, H, T, D], keys after the rotary embedding
                states.setdefault(f"{number}.key", []).append(layer.keys.abs().amax(dim=(0, 2, 3)))
                states.setdefault(f"{number}.value", []).append(layer.values.abs().amax(dim=(0, 2, 3)))
    for handle in handles:
        handle.remove()
    return inputs, {name: torch.stack(peaks).amax(dim=0).float() for name, peaks in states.items()}


def _linear(weight_OI: torch.Tensor, x_NI: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = torch.arange(count := min(ROWS, len(x_NI))) * (len(x_NI) - 1) // max(count - 1, 1)
    return {
        "input_amax": x_NI.abs().amax(dim=0).float(),
        "input_mean": x_NI.float().abs().mean(dim=0),
        "input_sample": x_NI[rows],
        "weight_amax": weight_OI.abs().amax(dim=1).float(),
        "weight_in_amax": weight_OI.abs().amax(dim=0).float(),
    }


def _smooth(found: Mapping[str, dict[str, torch.Tensor]], layout: Layout) -> None:
    """Adds AWQ's factors for one fixed exponent: linears of a fused group share theirs."""
    together = [list(group.linears) for group in layout.groups()]
    alone = [[name] for name in found if not any(name in names for names in together)]
    for names in [*together, *alone]:
        mean_I = found[names[0]]["input_mean"].clamp(min=1e-8)
        scale_I = mean_I.pow(AWQ_ALPHA).clamp(1e-4, 1e4)
        scale_I = scale_I / (scale_I.max() * scale_I.min()).sqrt()
        for name in names:
            found[name]["awq_smoothing"] = 1.0 / scale_I
            found[name]["awq_loss"] = torch.ones(11)
