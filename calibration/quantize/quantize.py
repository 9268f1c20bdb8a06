"""Derives a quantized checkpoint from statistics and source weights: step quantized_checkpoint.

Runs in a child process. The model is never loaded: scales come from the statistics, and weights are quantized
one after another (calibration/formats/scales.py describes how).
"""

from calibration.model.checkpoint_reader import Source
from calibration.model.heap import return_large_blocks
from calibration.model.linears import HEAD, layout
from calibration.parameters import QuantizedJob, QuantizedParams
from calibration.quantize.assignment import assign_formats, intended_format, reason_left
from calibration.quantize.checkpoint_export import Findings, write
from calibration.quantize.coverage import Linear
from calibration.quantize.derive import kv_cache, measured
from calibration.statistics.statistics_artifact import Statistics
from calibration.step_progress import Progress

FULL_SMOOTHING = 1.0
"""SmoothQuant's alpha in ModelOpt's preset."""


def build(job: QuantizedJob, progress: Progress) -> None:
    """Writes the quantized checkpoint of the input `source` and its coverage.json.

    The input `statistics` may be absent where no scale is calibrated. Raises CheckpointError for a source
    or statistics that cannot be used, QuantizationIncomplete for surprises.
    """
    return_large_blocks()
    source = Source.open(job.inputs["source"])
    statistics = Statistics(job.inputs["statistics"]) if "statistics" in job.inputs else None
    write(source, derive_findings(source, statistics, job.params), job.out, progress)


def alpha_of(params: QuantizedParams) -> float:
    """SmoothQuant's alpha; where no format smooths by it, that of ModelOpt's preset."""
    return FULL_SMOOTHING if params.smoothing is None else params.smoothing


def derive_findings(source: Source, statistics: Statistics | None, params: QuantizedParams) -> Findings:
    """The measurements for a step's `format`, `kv_cache` and `smoothing`."""
    precision, names = params.format, layout(source.config)
    formats = assign_formats(precision, names)
    measurements = measured(statistics, formats, names, dtype=source.dtype, alpha=alpha_of(params))
    linears = {
        name: Linear(
            module=name,
            intended=intended_format(precision, name),
            actual=measurements[name].fmt.name if name in measurements else "source",
            reason=reason_left(precision, name),
        )
        for name in (*formats, *names.routers(), HEAD)
    }
    cache = kv_cache(statistics, params.kv_cache, names)
    return Findings(precision=precision, linears=linears, measured=measurements, kv_cache=cache)
