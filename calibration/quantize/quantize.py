"""Derives a quantized checkpoint from statistics and source weights: step quantized_checkpoint.

Runs in a child process. The model is never loaded: scales come from the statistics, and weights are quantized
one after another (calibration/formats/scales.py describes how).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.model.checkpoint_reader import Source
from calibration.model.heap import return_large_blocks
from calibration.model.linears import HEAD, layout
from calibration.progress import Progress
from calibration.quantize.assignment import assign_formats, intended_format, reason_left
from calibration.quantize.checkpoint_export import Findings, write
from calibration.quantize.coverage import Linear
from calibration.quantize.derive import kv_cache, measured
from calibration.statistics.statistics_artifact import Statistics
from recipes.precision import Precision

FULL_SMOOTHING = 1.0
"""SmoothQuant's alpha in ModelOpt's preset."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Write the quantized checkpoint of `inputs["source"]` and its coverage.json.

    `inputs["statistics"]` may be missing where no scale is calibrated. CheckpointError for an unusable source
    or statistics, QuantizationIncomplete for deviations from the intended formats.
    """
    return_large_blocks()
    params, inputs = job["params"], job["inputs"]
    source = Source.open(Path(inputs["source"]))
    statistics = Statistics(Path(inputs["statistics"])) if "statistics" in inputs else None
    write(source, derive_findings(source, statistics, params), out, progress)


def derive_findings(source: Source, statistics: Statistics | None, params: Mapping[str, Any]) -> Findings:
    """The measurements for a step's `format`, `kv_cache` and `smoothing`."""
    precision, names = Precision.parse(params["format"]), layout(source.config)
    formats = assign_formats(precision, names)
    measurements = measured(
        statistics, formats, names, dtype=source.dtype, alpha=params.get("smoothing", FULL_SMOOTHING)
    )
    linears = {
        name: Linear(
            module=name,
            intended=intended_format(precision, name),
            actual=measurements[name].fmt.name if name in measurements else "source",
            reason=reason_left(precision, name),
        )
        for name in (*formats, *names.routers(), HEAD)
    }
    cache = kv_cache(statistics, params.get("kv_cache", "auto"), names)
    return Findings(precision=precision, linears=linears, measured=measurements, kv_cache=cache)
