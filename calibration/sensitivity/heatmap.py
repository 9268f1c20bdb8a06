"""Plots quantization errors: a panel per format, layers across, kinds of linears down."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calibration.sensitivity.sensitivity_values import Sensitivity

MISSING = "#e8eaed"
"""Colour of a linear that does not fit the format's blocks."""

MAX_TICKS = 16
"""Most layers labelled under a panel."""


def draw(document: Sensitivity, path: Path) -> None:
    """Draws the contents of sensitivity.json as PNG; each panel's colours span its own errors."""
    formats, grid = document["formats"], [_place(linear["module"]) for linear in document["linears"]]
    kinds = list(dict.fromkeys(kind for _, kind in grid))
    layers = max(layer for layer, _ in grid) + 1
    size = (max(7.0, 3.0 + 0.28 * layers), 0.7 + (0.9 + 0.26 * len(kinds)) * len(formats))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(formats), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, formats, strict=True):
        cells = [[math.nan] * layers for _ in kinds]
        for (layer, kind), linear in zip(grid, document["linears"], strict=True):
            cells[kinds.index(kind)][layer] = linear["errors"].get(name, math.nan)
        _panel(figure, axes, name, cells)
        axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
        axes.set_xticks(range(0, layers, math.ceil(layers / MAX_TICKS)))
    panels[-1].set_xlabel("layer")
    figure.suptitle("Relative output error of each linear, by format", x=0.01, ha="left", weight="bold")
    figure.savefig(path, dpi=150, format="png", metadata={"Software": None})


def _place(module: str) -> tuple[int, str]:
    """Layer and kind: `model.layers.3.mlp.up_proj` is 3, `up_proj`."""
    parts = module.split(".")
    return int(parts[2]), parts[-1]


def _panel(figure: Figure, axes: Axes, name: str, cells: Sequence[Sequence[float]]) -> None:
    """One format; an error of zero is drawn in the colour of the smallest."""
    positive = [error for row in cells for error in row if error > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    # A logarithmic scale needs two different bounds.
    norm = LogNorm(low, max(high, 1.01 * low), clip=True)
    axes.set_facecolor(MISSING)
    values = [[max(error, low) if not math.isnan(error) else math.nan for error in row] for row in cells]
    image = axes.imshow(values, aspect="auto", cmap="viridis", norm=norm)
    axes.set_title(f"{name}: {low:.2g} to {high:.2g}", loc="left", fontsize=9.5)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.ax.tick_params(labelsize=7, which="both")
