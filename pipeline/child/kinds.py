"""The table of kinds: what makes each kind of step, its job, and the tools that decide its bytes.

No other place names the code of a step: keys, manifests and jobs name the kind. So a function may
move: then one row changes here, and no key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibration.job import Job
from calibration.parameters import (
    CalibrationSetJob,
    LeakageJob,
    QuantizedJob,
    SensitivityJob,
    StatisticsJob,
)
from pipeline.step.step_parameters import (
    BaselineJob,
    DatasetJob,
    EngineJob,
    EvaluationJob,
    GenerationJob,
    MeasurementJob,
    ShardedJob,
    SourceJob,
    TunedJob,
)


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes the steps of one kind."""

    function: str
    """`module:function` that a child process calls with the job and progress."""
    job: type[Job[Any, Any]]
    """What the job's file is read as."""
    tools: tuple[str, ...] = ()
    """Packages whose versions are in the key, because they decide what is written."""


TEXT = ("transformers", "tokenizers", "jinja2")
"""What turns rows into tokens: chat templates are Jinja."""

KINDS: Mapping[str, Maker] = {
    # kind                          function, job                                tools that decide the bytes
    "source":               Maker("pipeline.checkpoint.source_checkpoint:build", SourceJob),
    "source.heads":         Maker("pipeline.drafting.heads:build", SourceJob),
    "dataset":              Maker("pipeline.sources.hub_dataset:build", DatasetJob),
    "calibration_set":      Maker("calibration.data.calibration_set:build", CalibrationSetJob, TEXT),
    "leakage":              Maker("calibration.data.leakage:build", LeakageJob),
    "statistics":
        Maker("calibration.statistics.statistics_pass:build", StatisticsJob, ("torch", "transformers")),
    "sensitivity":
        Maker("calibration.sensitivity.measure_sensitivity:build", SensitivityJob, ("torch",)),
    "quantized_checkpoint":
        Maker("calibration.quantize.quantize:build", QuantizedJob, ("nvidia-modelopt", "torch")),
    "quantized_checkpoint.modelopt":
        Maker("calibration.modelopt.calibrate:build", QuantizedJob,
              ("nvidia-modelopt", "torch", "transformers")),
    "sharded_checkpoint":   Maker("pipeline.checkpoint.convert:build", ShardedJob),
    "engine.tuned":         Maker("pipeline.evaluate.tuned_engine:build", TunedJob),
    "measurement":          Maker("pipeline.evaluate.measurement:build", MeasurementJob),
    "baseline":             Maker("pipeline.evaluate.baseline:build", BaselineJob, ("torch", *TEXT)),
    "evaluation":           Maker("pipeline.evaluate.evaluation:build", EvaluationJob, ("numpy",)),
    "generation":           Maker("pipeline.evaluate.generation:build", GenerationJob),
}  # fmt: skip
"""Kind, dotted with a variant where it has several makers, -> what makes it.

`engine.<backend>` is asked of the backend, whose `identity` names compiler, libraries and hardware. A
quantized checkpoint states ModelOpt's version in its configuration; the evaluation's intervals come from
numpy's random numbers. What only reads or writes files (pyarrow, safetensors, matplotlib) decides no value
and is in no key. `generation` is no step: it runs an engine for one prompt.
"""


def maker(kind: str) -> Maker:
    """What makes a dotted kind; a KeyError for one that does not exist."""
    first, _, variant = kind.partition(".")
    if kind in KINDS or first != "engine":
        return KINDS[kind]
    from pipeline import engines  # a backend's checks: only the engines' children need them

    if variant not in engines.names():
        raise KeyError(kind)
    return Maker(engines.backend(variant).build, EngineJob)


PUBLISHED: Mapping[str, str] = {
    "pipeline.source:build": "source",
    "pipeline.heads:build": "source.heads",
    "pipeline.dataset:build": "dataset",
    "calibration.dataset:build": "calibration_set",
    "calibration.leakage:build": "leakage",
    "calibration.statistics.build:build": "statistics",
    "calibration.sensitivity:build": "sensitivity",
    "calibration.quantize:build": "quantized_checkpoint",
    "calibration.modelopt_calibration:build": "quantized_checkpoint.modelopt",
    "pipeline.checkpoint.convert:build": "sharded_checkpoint",
    "pipeline.engines.aoti.build:build": "engine.aoti",
    "pipeline.engines.tensorrt.build:build": "engine.tensorrt",
    "pipeline.engines.trtllm_torch.build:build": "engine.trtllm_torch",
    "pipeline.tuning:build": "engine.tuned",
    "pipeline.measurement:build": "measurement",
    "pipeline.baseline:build": "baseline",
    "pipeline.evaluation:build": "evaluation",
    "pipeline.generation:build": "generation",
}
"""What manifests of enginery 0.1 have in a step's `builder`, where its code stood then -> its kind of today.

Names that were published: no row changes when a function moves.
"""


def of_0_1(step: Mapping[str, Any]) -> bool:
    """Whether enginery 0.1 wrote the step of a manifest, whose key then hashed where the code stood."""
    return step.get("builder") in PUBLISHED


def kind_of(step: Mapping[str, Any]) -> str | None:
    """The dotted kind of a manifest's step, whichever version of enginery wrote it."""
    return PUBLISHED[step["builder"]] if of_0_1(step) else step.get("kind")
