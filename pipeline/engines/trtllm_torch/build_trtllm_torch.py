"""Builds an engine of the PyTorch backend: links the checkpoint, writes the options, warms the autotuner up,
and proves that the library loads what is published; runs in a child process."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from artifacts import digest
from calibration.tokenizer_files import copy_tokenizer
from pipeline.drafting.eagle import net_shape
from pipeline.engines.trtllm_torch import autotuner
from pipeline.engines.trtllm_torch.llm_options import table_of
from pipeline.engines.trtllm_torch.served_options import OPTIONS
from pipeline.engines.trtllm_torch.torch_runner import CHECKPOINT, TUNING, runtime
from pipeline.engines.trtllm_torch.torch_settings import DRAFT, SPECULATIVE, passed
from pipeline.errors import BuildFailed, SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.shape import ModelShape
from pipeline.process.meter import Progress
from pipeline.step.reuse import REPORT
from pipeline.step.step_parameters import EngineJob, EngineParams
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm import gpus_idle
from pipeline.trtllm.engine import Runtime, opened
from pipeline.trtllm.gpu_memory import Peak, used_bytes
from pipeline.trtllm.proof import prove
from pipeline.trtllm.session import AUTOTUNER_CACHE
from pipeline.trtllm.windows import attention_windows
from pipeline.weights.tensors import read_config

PHASES = ("link", "warm up", "prove")
MIXED = "mixed"


def build(job: EngineJob, progress: Progress) -> None:
    """Writes `checkpoint/`, `tokenizer/`, `llm_options.yaml`, `tuning/` and `engine.json`."""
    params, toolchain, out = job.params, job.places.toolchain, job.out
    assert toolchain is not None
    chosen = gpus_idle.one_per_rank(params)
    env = {gpus_idle.VISIBLE: gpus_idle.visible(chosen)}
    clock = Clock(progress)
    with clock.phase("link"):
        _place(job)
    shape = read_shape(read_config(out / CHECKPOINT))
    key = tuning_key(out / CHECKPOINT, params.options)
    # Before the warm-up, because loading an engine reads it.
    (out / "engine.json").write_text(_json(_description(params, shape, out, key)))
    before = used_bytes()
    with Peak(before) as peak:
        with clock.phase("warm up"):
            made = _warm_up(job, toolchain, key, env)
        # A load of its own, from the files that are published and with the findings that are kept.
        with clock.phase("prove"), opened(_loading(out, toolchain, env)) as engine:
            proof = prove(engine, shape.vocab_size, params.max_seq_len)
    report = {
        "seconds": clock.seconds,
        "peak_gpu_memory_bytes": peak.bytes,
        "autotuner": made,
        "proof": proof,
    }
    # The report is kept there even where the autotuner left nothing.
    (out / TUNING).mkdir(exist_ok=True)
    (out / TUNING / REPORT).write_text(_json(report))
    progress(len(PHASES), len(PHASES), "phases")


class Clock:
    """Times the phases and reports them."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.seconds = progress, dict[str, float]()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times one phase."""
        self.progress(PHASES.index(name), len(PHASES), "phases")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)


def _place(job: EngineJob) -> None:
    """Puts everything but the autotuner's findings in its place."""
    source, options, out = job.inputs["quantized_checkpoint"], job.params.options, job.out
    link_tree(source, out / CHECKPOINT)
    (out / "tokenizer").mkdir()
    copy_tokenizer(source, out / "tokenizer")
    speculative = options.get("speculative_config") or {}
    if speculative.get("speculative_model_dir") == DRAFT:
        draft = job.inputs.get("draft_checkpoint")
        if draft is None:
            raise BuildFailed("speculative: the plan made no draft checkpoint; name one in speculative.draft")
        link_tree(draft, out / DRAFT)
    (out / OPTIONS).write_text(yaml.safe_dump(passed(options), sort_keys=True))


def link_tree(source: Path, target: Path) -> None:
    """Hard links every file of a tree that never changes; copies them where links cannot go."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def tuning_key(checkpoint: Path, options: Mapping[str, Any]) -> str:
    """Names the shapes that the autotuner times: those of the model under the options."""
    config = read_config(checkpoint)
    return digest.of_json({"config": config, "options": dict(options)})


def _warm_up(job: EngineJob, toolchain: Toolchain, key: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Fills `tuning/` by loading the engine for one prompt; says what is there, and why where nothing is.

    The autotuner reads and writes the file that an environment variable names.
    """
    params, out, tuning = job.params, job.out, job.out / TUNING
    world_size = params.tp * params.pp
    here = autotuner.identity(params.toolchain, world_size, key)
    table = table_of(toolchain.version)
    if table is None or not table.autotuner_cache:
        return {"files": [], "why": f"TensorRT-LLM {toolchain.version} keeps no autotuner cache on disk"}
    if not params.options["enable_autotuner"]:
        return {"files": [], "why": "engine.options.enable_autotuner is off"}
    earlier = job.places.tuning
    refused = autotuner.offered(earlier, here)
    tuning.mkdir()
    if earlier is not None and not refused:
        autotuner.copy(earlier, tuning)
    # Straight into the engine's own file; later loads get a copy of it (`torch_runner.runtime`).
    with opened(_loading(out, toolchain, {**env, AUTOTUNER_CACHE: str(tuning / autotuner.FILE)})) as engine:
        # The process starts with the first call, so one token is what makes it load.
        engine.generate([[0]], 1)
    problem = autotuner.usable(tuning, world_size)
    if problem:
        # A cache without an entry for each rank would stop the library at every later load.
        shutil.rmtree(tuning)
        return {"files": [], "why": problem, "earlier": refused or "used"}
    (tuning / autotuner.IDENTITY).write_text(_json(here))
    names = [file.name for file in autotuner.cache_files(tuning)]
    return {"files": names, "why": "", "earlier": refused or "used"}


def _loading(out: Path, toolchain: Toolchain, env: Mapping[str, str]) -> Callable[[Path], Runtime]:
    """How the engine is loaded while it is built: with more environment variables than later."""

    def make(scratch: Path) -> Runtime:
        made = runtime(out, toolchain, scratch)
        return replace(made, env={**made.env, **env})

    return make


def _description(params: EngineParams, shape: ModelShape, out: Path, key: str) -> dict[str, Any]:
    """Says what was built, for readers and for the runner."""
    precision, options = params.format, params.options
    weights = weight_files(out / CHECKPOINT)
    if not weights:
        raise SourceError(f"{out / CHECKPOINT}: no safetensors files; build from a quantized checkpoint")
    world_size = params.tp * params.pp
    dtype = options.get("dtype", "auto")
    cache, draft = kv_cache_bytes(params, shape, params.kv_cache), out / DRAFT
    if draft.is_dir():
        weights |= {f"{DRAFT}/{name}": size for name, size in weight_files(draft).items()}
        # The draft model's cache has its own type, whatever the target's is.
        cache += kv_cache_bytes(params, _drafting(draft, options), "auto")
    return {
        "backend": "trtllm_torch",
        "format": precision.default.name if precision.uniform else MIXED,
        "device": "cuda",
        "dtype": shape.dtype if dtype == "auto" else dtype,
        "kv_cache": params.kv_cache,
        "tp": params.tp,
        "pp": params.pp,
        "ep": params.ep,
        "world_size": world_size,
        "vocab_size": shape.vocab_size,
        "max_batch_size": params.max_batch_size,
        "max_seq_len": params.max_seq_len,
        "max_num_tokens": options["max_num_tokens"],
        "attention_windows": attention_windows(shape.windows, params.max_seq_len),
        "target": params.target,
        "gpu": params.toolchain["gpu"],
        "sm": params.toolchain["sm"],
        "driver": params.toolchain["driver"],
        "settings": dict(options),
        "differences": [],
        "tuning_key": key,
        "weight_bytes": weights,
        "kv_cache_bytes": cache,
        "memory_bytes_per_rank": [sum(weights.values()) // world_size + cache] * world_size,
        "toolchain": dict(params.toolchain["versions"]),
    }


def _drafting(draft: Path, options: Mapping[str, Any]) -> ModelShape:
    """Shape of what proposes tokens; EAGLE's nets have architectures of their own."""
    config = read_config(draft)
    eagle = options["speculative_config"]["decoding_type"] in SPECULATIVE["eagle"]
    return net_shape(config) if eagle else read_shape(config)


def weight_files(checkpoint: Path) -> dict[str, int]:
    """Bytes of a checkpoint's weight files."""
    return {file.name: file.stat().st_size for file in sorted(checkpoint.glob("*.safetensors"))}


def kv_cache_bytes(params: EngineParams, shape: ModelShape, kv_cache: str) -> int:
    """A rank's KV cache when every request is as long as it may be; the library's pool is what is left."""
    # An INT8 cache is refused by `torch_refusals`, so there is no third size.
    element = 1 if kv_cache == "fp8" else 2
    heads = max(1, shape.num_kv_heads // params.tp)
    per_token = 2 * -(-shape.num_layers // params.pp) * heads * shape.head_dim * element
    return params.max_batch_size * params.max_seq_len * per_token


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"
