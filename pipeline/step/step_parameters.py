"""Parameters and places of the steps that the pipeline builds; imports neither torch nor transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from calibration.job import FormatParam, Job, NoPlaces, Parameters, Places
from calibration.parameters import Count, DrawnSource, TextPlaces
from pipeline.toolchains.toolchain import Toolchain
from recipes.schema import Slo


class SourceParams(Parameters):
    """A checkpoint: by the digest of a directory, or by a commit of the hub."""

    digest: str | None = None
    config: str | None = None
    """Digest of config.json, where that is all there is: such a step is planned, and never runs."""
    repo: str | None = None
    revision: str | None = None


class SourcePlaces(Places):
    """Where a checkpoint is copied or downloaded from."""

    path: Path | None = None
    cache: Path | None = None
    """Directory of interrupted downloads; beside the output where there is none."""
    endpoint: str | None = None
    """Address of the hub; the public one where there is none."""


class DatasetParams(Parameters):
    """Data files of a hub dataset at a commit."""

    repo: str
    revision: str
    files: tuple[str, ...]


class DatasetPlaces(Places):
    """Where a hub dataset is downloaded from."""

    cache: Path
    endpoint: str | None = None


class Proposals(Parameters):
    """Speculative decoding: what proposes tokens, and how many."""

    mode: str
    max_draft_len: int


class ShardedParams(Parameters):
    """One weight file per rank, in TensorRT-LLM layout."""

    format: FormatParam
    kv_cache: str
    tp: int
    pp: int
    ep: int
    layout_version: int
    at_build: bool | None = None
    """The builder of the engine quantizes what `loadable.stored` leaves."""
    names: str | None = None
    """Last release of TensorRT-LLM with the names that are written, where they differ between releases."""
    speculative: Proposals | None = None
    """Of the heads among the inputs."""


class EngineParams(Parameters):
    """An engine for one set of settings."""

    backend: str
    format: FormatParam
    target: str
    tp: int
    pp: int
    ep: int
    kv_cache: str
    max_batch_size: int
    max_seq_len: int
    options: Mapping[str, Any]
    """Every option of the backend with its effective value, JSON that only the backend reads."""
    toolchain: Mapping[str, Any]
    """What of the host and of the toolchain decides the engine, as the backend says."""
    speculative: Proposals | None = None


class EnginePlaces(Places):
    """What an engine is built with."""

    toolchain: Toolchain | None = None
    tuning: Path | None = None
    """What earlier builds of the same settings learned; the store's is set when the step runs."""


class TunedParams(Parameters):
    """A search over engine settings."""

    points: tuple[Mapping[str, Any], ...]
    """Field of the recipe's engine -> value, of each point."""
    objective: Literal["throughput", "latency"]
    slo: Slo


class TunedPlaces(Places):
    """How the search went."""

    failures: Mapping[int, str] = {}
    """Number of a point that could not be built or measured -> why."""


class Timing(Parameters):
    """How an engine is timed, where its limits allow."""

    prompt_len: int
    new_tokens: int
    repeats: int


class TimedHost(Parameters):
    """The host that an engine is timed on."""

    cpu: str
    cores: int
    gpus: tuple[str, ...]


class MeasurementParams(Timing):
    """Speed of an engine on a host."""

    host: TimedHost


class BaselineParams(Parameters):
    """Scores of the source checkpoint on the gate's data."""

    data: DrawnSource
    seq_len: int
    max_sequences: Count
    top_k: int
    """Most likely tokens per position that are kept."""
    tools: Mapping[str, str]


class EvaluationParams(Parameters):
    """A built engine against the baseline."""

    tools: Mapping[str, str]


class GenerationParams(Parameters):
    """One prompt to continue; no step of a plan."""

    prompt: str
    max_new_tokens: int
    temperature: float
    seed: int
    chat: bool
    date: str


SourceJob = Job[SourceParams, SourcePlaces]
DatasetJob = Job[DatasetParams, DatasetPlaces]
ShardedJob = Job[ShardedParams, NoPlaces]
EngineJob = Job[EngineParams, EnginePlaces]
TunedJob = Job[TunedParams, TunedPlaces]
MeasurementJob = Job[MeasurementParams, NoPlaces]
BaselineJob = Job[BaselineParams, TextPlaces]
EvaluationJob = Job[EvaluationParams, NoPlaces]
GenerationJob = Job[GenerationParams, NoPlaces]
