"""Turns built and measured points into the engine step's output: the best engine, every trial beside it."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.address import key_of
from artifacts.manifest import MANIFEST
from pipeline.evaluate import tuning_plots, tuning_search
from pipeline.process.meter import Progress
from pipeline.step.step_parameters import TunedJob


def build(job: TunedJob, progress: Progress) -> None:
    """Chooses the best feasible trial and takes its engine, with `tuning/trials.json` and a plot."""
    objective, slo = job.params.objective, job.params.slo
    trials = [_trial(number, point, job) for number, point in enumerate(job.params.points)]
    best = tuning_search.choose(trials, objective, slo)
    number = trials.index(best)
    _take(job.inputs[f"engine_{number}"], job.out, progress)
    tuning = job.out / "tuning"
    # the engine may have brought a `tuning/` of its own
    tuning.mkdir(exist_ok=True)
    document = {
        "objective": objective,
        "slo": slo.model_dump(mode="json"),
        "chosen": number,
        "trials": [trial.as_dict() for trial in trials],
    }
    (tuning / "trials.json").write_text(json.dumps(document, indent=2))
    tuning_plots.throughput_plot(trials, objective, slo, tuning / "trials.png")


def _trial(number: int, point: Mapping[str, Any], job: TunedJob) -> tuning_search.Trial:
    """One trial, from its artifacts or from why there are none."""
    engine = job.inputs.get(f"engine_{number}")
    measured = job.inputs.get(f"measurement_{number}")
    return tuning_search.Trial(
        point=point,
        engine=key_of(engine.name) if engine else None,
        measurement=json.loads((measured / "measurement.json").read_text()) if measured else None,
        why=job.places.failures.get(number, ""),
    )


def _take(engine: Path, out: Path, progress: Progress) -> None:
    """Fills `out` with the engine's files; sealed files of one file system are shared, not copied."""
    # without the manifest: the store writes one for this step's own key
    files = [path for path in sorted(engine.rglob("*")) if path.is_file() and path.name != MANIFEST]
    for done, path in enumerate(files, 1):
        target = out / path.relative_to(engine)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system, or one without links
            shutil.copy2(path, target)
        progress(done, len(files), "files")
