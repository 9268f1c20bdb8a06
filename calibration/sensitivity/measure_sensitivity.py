"""The step that measures what each linear's quantization costs, from statistics and source weights.

sensitivity.json   `linears` and `units` (linears that must have one format), each with `errors` and `bytes`
                   by format: the relative output error |X W' - Q(X) Q(W)'|^2 / |X W'|^2 on the recorded
                   rows X (of a unit: the sum over its linears), and bytes of weights with their scales;
                   `none` is among the formats, at no error. `left_out`: format -> why it was not measured
heatmap.png        one panel per format, layers across, kinds of linears down
page.html          the same for people, with the proposal; needs no other file
"""

# R: rows of the sample   I: input channels   O: output channels

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import safe_open

from calibration.errors import CheckpointError
from calibration.formats.rounding import dequantized, rounded
from calibration.formats.scales import Measured, quantized
from calibration.model.checkpoint_reader import Source
from calibration.model.linears import Layout, layout
from calibration.parameters import SensitivityJob, SensitivityParams
from calibration.quantize.derive import measured
from calibration.sensitivity import proposal
from calibration.sensitivity.heatmap import draw
from calibration.sensitivity.sensitivity_page import page
from calibration.sensitivity.sensitivity_values import LinearValues, Sensitivity
from calibration.statistics.statistics_artifact import Statistics
from calibration.step_progress import Progress
from recipes.formats import EXPERT_REFUSALS, FORMATS, Format

LAYOUT_VERSION = 1
"""Raised when files, names or units change."""


def build(job: SensitivityJob, progress: Progress) -> None:
    """Writes sensitivity.json, heatmap.png and page.html; inputs are a source and its statistics."""
    out, source, statistics = job.out, Source.open(job.inputs["source"]), Statistics(job.inputs["statistics"])
    document = measure(source, statistics, job.params, progress)
    (out / "sensitivity.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document, out / "heatmap.png")
    (out / "page.html").write_text(page(document, (out / "heatmap.png").read_bytes()), encoding="utf-8")


def measure(
    source: Source, statistics: Statistics, params: SensitivityParams, progress: Progress
) -> Sensitivity:
    """Contents of sensitivity.json; holds one linear's weight at a time."""
    requested = [FORMATS[name] for name in params.formats]
    left_out = unmet(statistics, requested)
    formats = [fmt for fmt in requested if fmt.name not in left_out]
    names_of = layout(source.config)
    modules = linears(statistics, names_of)
    pass_ = Pass(source, statistics, formats, params.smoothing, torch.device(params.device))
    measured_linears: list[LinearValues] = []
    for names in fused(modules, names_of):
        scales = pass_.scales(names)
        # Linears of a group have their scales from the group, and are measured one by one.
        for name in names:
            progress(len(measured_linears), len(modules), "linears")
            measured_linears.append(pass_.linear(name, {fmt: scales[fmt][name] for fmt in scales}))
    progress(len(modules), len(modules), "linears")
    return {
        "layout_version": LAYOUT_VERSION,
        "model": {"architectures": source.config.get("architectures"), "layers": names_of.num_layers},
        "formats": [fmt.name for fmt in formats],
        "left_out": left_out,
        "linears": measured_linears,
        "units": [unit.as_dict() for unit in proposal.units(measured_linears, names_of.units())],
    }


def linears(statistics: Statistics, names: Layout) -> list[str]:
    """Every linear that can be measured, layer by layer.

    Experts of a stack have a common input scale: if no token reached one of them, none of them is measured.
    """
    suffix = ".input_amax"
    recorded = {name.removesuffix(suffix) for name in statistics.places if name.endswith(suffix)}
    unreached = {name for stack in names.stacks() if not recorded.issuperset(stack) for name in stack}
    measurable = [name for name in names.linears() if name in recorded - unreached]
    return measurable + sorted(
        recorded.difference(names.linears())
    )  # of another model: `weight` reports them


def fused(modules: Sequence[str], names: Layout) -> list[tuple[str, ...]]:
    """The linears in groups that must have one format, most of them alone."""
    together = {name: unit for unit in names.units() for name in unit}
    return list(dict.fromkeys(together.get(name, (name,)) for name in modules))


def unmet(statistics: Statistics, formats: Sequence[Format]) -> dict[str, str]:
    """Formats that need more than the statistics hold -> why they cannot be measured."""
    if any(name.endswith(".awq_smoothing") for name in statistics.places):
        return {}
    reason = "AWQ's search was not recorded; set calibration.statistics to all"
    return {fmt.name: reason for fmt in formats if fmt.needs == "search"}


@dataclass(frozen=True, slots=True)
class Pass:
    """Measures a model linear by linear."""

    source: Source
    statistics: Statistics
    formats: Sequence[Format]
    alpha: float
    """SmoothQuant's share of the input ranges that moves into the weights."""
    device: torch.device

    def scales(self, names: Sequence[str]) -> dict[str, dict[str, Measured]]:
        """Format -> measurements of each of the linears, which must have one format."""
        names_of, dtype = layout(self.source.config), self.statistics.sample(names[0]).dtype
        experts = names_of.in_experts(names[0])
        return {
            fmt.name: measured(
                self.statistics, dict.fromkeys(names, fmt), names_of, dtype=dtype, alpha=self.alpha
            )
            for fmt in self.formats
            if not (experts and fmt.name in EXPERT_REFUSALS)
        }

    def linear(self, module: str, scales: Mapping[str, Measured]) -> LinearValues:
        """One linear's errors and bytes in every format whose blocks fit it."""
        x_RI = self.statistics.sample(module).to(self.device)
        weight_OI = weight(self.source, module).to(self.device, x_RI.dtype)
        # In float32: in the model's dtype, its rounding would hide small errors.
        y_RO = x_RI.float() @ weight_OI.float().T
        errors, sizes = {"none": 0.0}, {"none": weight_OI.nbytes}
        for name, measurement in scales.items():
            # A format that does not fit is absent from both, so that a proposal keeps the linear at the wider
            # one.
            if fits(tuple(weight_OI.shape), measurement.fmt):
                parts = quantized(weight_OI, measurement.to(self.device))
                rounded_RO = rounded(x_RI.float(), measurement.to(self.device), parts) @ dequantized(parts).T
                errors[name] = relative_error(y_RO, rounded_RO)
                sizes[name] = sum(part.nbytes for part in parts.values())
        shape = list(weight_OI.shape)
        return {"module": module, "shape": shape, "rows": len(x_RI), "errors": errors, "bytes": sizes}


def weight(source: Source, module: str) -> torch.Tensor:
    """A linear's weight [O, I]; raises CheckpointError where the source has none."""
    name = f"{module}.weight"
    if name not in source.files:
        raise CheckpointError(f"{source.root}: no {name}; the statistics were recorded for another model")
    with safe_open(source.root / source.files[name], framework="pt") as handle:
        tensor: torch.Tensor = handle.get_tensor(name)
    return tensor


def fits(shape: tuple[int, ...], fmt: Format) -> bool:
    """Whether whole blocks and byte pairs fit a weight."""
    return fmt.granularity != "block" or (shape[1] % fmt.block_size == 0 and shape[0] % 2 == 0)


def relative_error(exact_RO: torch.Tensor, rounded_RO: torch.Tensor) -> float:
    """Squared norm of the difference over that of the exact output; 0 where nothing differs."""
    noise = (rounded_RO - exact_RO).double().square().sum()
    # A dead linear has no output: 0 / 0 would be NaN.
    return float(noise / exact_RO.double().square().sum()) if noise else 0.0
