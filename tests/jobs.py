"""Builders of steps, called as their child process calls them, with what a test leaves out filled in."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.child.door import load
from pipeline.child.kinds import maker
from pipeline.process.meter import Progress
from pipeline.step.step import Step

TEXT: dict[str, Any] = {"columns": {}, "bad_rows": 0, "render": "auto"}
TOOLS: dict[str, Any] = {"tools": {}}
ENGINE: dict[str, Any] = {
    "target": "host", "tp": 1, "pp": 1, "ep": 1, "kv_cache": "auto", "options": {}, "toolchain": {},
}  # fmt: skip
OMITTED: Mapping[str, Mapping[str, Any]] = {
    "calibration_set": TOOLS,
    "statistics": TOOLS,
    "sensitivity": TOOLS | {"device": "cpu"},
    "quantized_checkpoint": TOOLS | {"kv_cache": "auto"},
    "quantized_checkpoint.modelopt": TOOLS | {"kv_cache": "auto"},
    "sharded_checkpoint": {"kv_cache": "auto", "ep": 1},
    "baseline": TOOLS,
    "engine.aoti": ENGINE | {"backend": "aoti"},
    "engine.trtllm_torch": ENGINE | {"backend": "trtllm_torch"},
}
"""Kind -> parameters that a test may leave out."""

Build = Callable[[Mapping[str, Any], Path, Progress], None]


def job_of(kind: str, document: Mapping[str, Any], out: Path) -> Any:
    """The job that a builder of the kind gets, of plain values."""
    document = {name: plain(value) for name, value in document.items()}
    params = {**OMITTED.get(kind, {}), **document.get("params", {})}
    for field in ("data", "gate"):
        if isinstance(params.get(field), list):
            params[field] = [{**TEXT, **source} for source in params[field]]
        elif field in params:
            params[field] = {**TEXT, **params[field]}
    whole = {"places": {}, "inputs": {}, **document, "kind": kind, "params": params, "out": out}
    known = {name: whole[name] for name in ("kind", "params", "places", "inputs", "out")}
    return maker(kind).job.model_validate_json(json.dumps(known, default=str))


def plain(value: Any) -> Any:
    """A value of a step as a test may change it."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def build(kind: str, document: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Fills `out` from a job's `params`, `places` and `inputs`."""
    load(maker(kind).function)(job_of(kind, document, out), progress)


build_source: Build = partial(build, "source")
build_heads: Build = partial(build, "source.heads")
build_dataset: Build = partial(build, "dataset")
build_calibration_set: Build = partial(build, "calibration_set")
build_leakage: Build = partial(build, "leakage")
build_statistics: Build = partial(build, "statistics")
build_sensitivity: Build = partial(build, "sensitivity")
build_quantized: Build = partial(build, "quantized_checkpoint")
build_modelopt: Build = partial(build, "quantized_checkpoint.modelopt")
build_sharded: Build = partial(build, "sharded_checkpoint")
build_baseline: Build = partial(build, "baseline")
build_tuned: Build = partial(build, "engine.tuned")
build_aoti: Build = partial(build, "engine.aoti")
build_trtllm_torch: Build = partial(build, "engine.trtllm_torch")


def params_of(step: Step) -> Any:
    """The parameters of a step whose kind the test knows and the type checker does not."""
    return step.params


def places_of(step: Step) -> Any:
    """The places of such a step."""
    return step.places
