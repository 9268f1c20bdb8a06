"""Derives a quantized checkpoint from statistics and source weights: step quantized_checkpoint.

Runs in a child process. The model is never loaded: scales come from the statistics, weights pass through
one after another (calibration/formats/scales.py says what becomes of them).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibration.model.checkpoint_reader import Source
from calibration.model.heap import return_large_blocks
from calibration.model.linears import HEAD, layout
from calibration.quantize.assignment import assigned, intended, reason_left
from calibration.quantize.checkpoint_export import Findings, write
from calibration.quantize.coverage import Linear
from calibration.quantize.derive import kv_cache, measured
from calibration.statistics.statistics_artifact import Statistics
from recipes.precision import Precision

Progress = Callable[[int, int, str], None]

FULL_SMOOTHING = 1.0
"""SmoothQuant's alpha in ModelOpt's preset."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Writes the quantized checkpoint of `inputs["source"]` and its coverage.json.

    `inputs["statistics"]` may be absent where no scale is calibrated. Raises CheckpointError for a source
    or statistics that cannot be used, QuantizationIncomplete for surprises.
    """
    return_large_blocks()
    params, inputs = job["params"], job["inputs"]
    source = Source.open(Path(inputs["source"]))
    statistics = Statistics(Path(inputs["statistics"])) if "statistics" in inputs else None
    write(source, derived(source, statistics, params), out, progress)


def derived(source: Source, statistics: Statistics | None, params: Mapping[str, Any]) -> Findings:
    """What the source is quantized with, for a step's `format`, `kv_cache` and `smoothing`."""
    precision, names = Precision.parse(params["format"]), layout(source.config)
    formats = assigned(precision, names)
    found = measured(
        statistics, formats, names, dtype=source.dtype, alpha=params.get("smoothing", FULL_SMOOTHING)
    )
    linears = {
        name: Linear(
            module=name,
            intended=intended(precision, name),
            actual=found[name].fmt.name if name in found else "source",
            reason=reason_left(precision, name),
        )
        for name in (*formats, *names.routers(), HEAD)
    }
    cache = kv_cache(statistics, params.get("kv_cache", "auto"), names)
    return Findings(precision=precision, linears=linears, measured=found, kv_cache=cache)
