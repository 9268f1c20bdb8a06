"""Builds an engine directory from a sharded checkpoint; runs in a child process."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

from pipeline.engines.aoti.aoti_options import Options
from pipeline.engines.aoti.arch import Arch, read_arch
from pipeline.engines.aoti.compile import Plan, compile_graph, fake_group, package
from pipeline.engines.aoti.fixed_path import fixed_place, name_of
from pipeline.engines.aoti.gemv_tuning import Tuning
from pipeline.engines.aoti.kv_cache import cache_dtype
from pipeline.engines.aoti.quantization import MIXED_FILE, differences
from pipeline.engines.aoti.sizes import GRAPHS, Limits, cache_bytes
from pipeline.engines.aoti.weights import bind, loaded_bytes
from pipeline.errors import SourceError
from pipeline.process.meter import Progress
from pipeline.step.reuse import TUNING
from pipeline.step.step_parameters import EngineJob, EngineParams

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def build(job: EngineJob, progress: Progress) -> None:
    """Compiles every stage and puts the weights beside."""
    params, checkpoint, out = job.params, job.inputs["sharded_checkpoint"], job.out
    arch, options = read_arch(checkpoint), Options.model_validate(params.options)
    _check_same(params, arch)
    plan = Plan(
        arch=arch,
        limits=Limits(max_batch_size=params.max_batch_size, max_seq_len=params.max_seq_len),
        dtype=DTYPES[arch.dtype if options.dtype == "auto" else options.dtype],
        tuning=Tuning(kept=out / TUNING, earlier=job.places.tuning) if options.autotune else None,
        threads=rank_threads(options, arch),
    )
    # Compilers write paths into what they make: the same job has the same path.
    with _compilers_place(out, name_of(job)):
        stages = _compile_stages(plan, checkpoint, out, progress)
    _place_weights(checkpoint, out, arch)
    # Last, because it reads the sizes of packages and weights in `out`.
    (out / "engine.json").write_text(json.dumps(_description(plan, params, stages, out), indent=1) + "\n")


@contextmanager
def _compilers_place(out: Path, name: str) -> Iterator[None]:
    """Has the compiler work in an empty directory, which is gone afterwards.

    All that Inductor leaves there beside the packages are answers to its own questions about this machine:
    packages are compiled anew in any case.
    """
    work = out / "compiling"
    work.mkdir()
    with fixed_place(work, name) as place, temporary_cache_dir(str(place)):
        yield
    # After a failure it stays: the caller discards all of `out`.
    shutil.rmtree(work)


def rank_threads(options: Options, arch: Arch) -> int:
    """Returns the threads of one rank; `auto` divides this host's cores among the ranks."""
    if options.threads != "auto":
        return options.threads
    return max(1, len(os.sched_getaffinity(0)) // arch.world_size)


def _check_same(params: EngineParams, arch: Arch) -> None:
    layout = [("tp", arch.tp, params.tp), ("pp", arch.pp, params.pp), ("ep", arch.ep, params.ep)]
    for name, found, wanted in [*layout, *differences(arch.linears, params.format, arch.sources)]:
        if found != wanted:
            raise SourceError(
                f"config.json: {name} is {found!r}, the engine asks for {wanted!r}; "
                "give the checkpoint of that layout and format"
            )


def _compile_stages(plan: Plan, checkpoint: Path, out: Path, progress: Progress) -> list[str]:
    """Compiles each different stage once; returns the package file of every stage."""
    arch = plan.arch
    # Reversed, so that the first stage of a role is the one that stays.
    first_of = {_role(arch, stage): stage for stage in reversed(range(arch.pp))}
    total, done = len(first_of) * len(GRAPHS), 0
    with fake_group(arch.tp):
        for stage in sorted(first_of.values()):
            # The stage's first rank stands for its peers: what differs between them is data, not code.
            tensors = bind(checkpoint, arch, stage * arch.tp, plan.dtype, plan.limits.capacity)
            compiled = {}
            for graph in GRAPHS:
                progress(done, total, "graphs")
                compiled[graph] = compile_graph(plan, stage, tensors, graph)
                done += 1
            package(compiled, out / _package_name(stage))
    progress(done, total, "graphs")
    return [_package_name(first_of[_role(arch, stage)]) for stage in range(arch.pp)]


def _package_name(stage: int) -> str:
    return f"stage{stage}.pt2"


def _role(arch: Arch, stage: int) -> tuple[Any, ...]:
    """Stages of the same role have the same code: embedding, head, formats and windows."""
    formats = [fmt for layer in arch.stage_linears(stage) for fmt in layer.values()]
    return (stage == 0, stage == arch.pp - 1, *formats, *arch.stage_windows(stage))


def _place_weights(checkpoint: Path, out: Path, arch: Arch) -> None:
    for rank in range(arch.world_size):
        _link(checkpoint / f"rank{rank}.safetensors", out / f"rank{rank}.safetensors")
    for name in ("config.json", MIXED_FILE):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, out / name)
    shutil.copytree(checkpoint / "tokenizer", out / "tokenizer")


def _link(source: Path, target: Path) -> None:
    """Links a file that never changes; copies it where links cannot go."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _description(plan: Plan, params: EngineParams, stages: list[str], out: Path) -> dict[str, Any]:
    """Says what was built, for readers and for the runner."""
    arch, kept = plan.arch, cache_dtype(plan.arch.kv_cache, plan.dtype)
    cache = cache_bytes(arch, plan.dtype, plan.limits)
    weights = {
        name: (out / name).stat().st_size
        for name in (f"rank{rank}.safetensors" for rank in range(arch.world_size))
    }
    return {
        "backend": "aoti",
        "format": arch.format,
        "linears": arch.formats,
        "device": "cpu",
        "dtype": str(plan.dtype).removeprefix("torch."),
        "tp": arch.tp,
        "pp": arch.pp,
        "ep": arch.ep,
        "world_size": arch.world_size,
        "vocab_size": arch.vocab_size,
        "max_batch_size": plan.limits.max_batch_size,
        "max_seq_len": plan.limits.max_seq_len,
        "threads_per_rank": plan.threads,
        "ways": plan.ways,
        "stages": stages,
        "graphs": list(GRAPHS),
        "package_bytes": {name: (out / name).stat().st_size for name in sorted(set(stages))},
        "weight_bytes": weights,
        "kv_cache": str(kept).removeprefix("torch."),
        "kv_bytes_per_token": arch.kv_bytes_per_token(kept.itemsize),
        "kv_cache_bytes": cache,
        # Weights as they lie in memory, and the cache, which is allocated whole.
        "memory_bytes_per_rank": [loaded_bytes(out, arch, rank) + cache for rank in range(arch.world_size)],
        "toolchain": {**params.toolchain, "torch": torch.__version__},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
