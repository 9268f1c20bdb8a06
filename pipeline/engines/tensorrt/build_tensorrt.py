"""Builds the engines of a TensorRT-LLM step with an outside `trtllm-build`; runs in a child process.

Written from the command's sources and tested against a stand-in with the command's options; never run against
the real one.
"""

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.engines.tensorrt import timing_cache
from pipeline.engines.tensorrt.build_log import MARKS, BuildLog
from pipeline.engines.tensorrt.command import BuildRun, command
from pipeline.engines.tensorrt.description import (
    Built,
    add_draft,
    checked,
    describe,
    relative_places,
    write_json,
)
from pipeline.engines.tensorrt.engine_parts import Part, parts_of, viewed
from pipeline.engines.tensorrt.engine_settings import DRAFT
from pipeline.engines.tensorrt.timing_cache import Reuse
from pipeline.engines.tensorrt.workers import Workers, workers
from pipeline.errors import BuildFailed
from pipeline.process import process
from pipeline.process.meter import Progress
from pipeline.step.reuse import REPORT, TUNING
from pipeline.step.step_parameters import EngineJob
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm import gpus_idle
from pipeline.trtllm.gpus_idle import Device

SHOWN_ERRORS = 5

GPU_MEMORY = (
    "the GPU ran out of memory: lower engine.max_batch_size, engine.max_seq_len or options.max_num_tokens, "
    "or split the model over more GPUs"
)
HOST_MEMORY = (
    "if the host ran out of memory (see `dmesg`), build fewer ranks at once with fewer CUDA_VISIBLE_DEVICES"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """Where the parts are built."""

    toolchain: Toolchain
    devices: tuple[Device, ...]
    earlier: Path | None
    """Tuning directory of an earlier build."""
    scratch: Path
    """Directory for the logs of parts that are being built."""


def build(job: EngineJob, progress: Progress) -> None:
    """Builds the engine, and what belongs to it.

    Nothing of a part that fails is worth keeping: the caller discards `out`.
    """
    toolchain, out = job.places.toolchain, job.out
    assert toolchain is not None
    parts = parts_of(job)
    # As many as the largest part has ranks: parts are built one after another.
    devices = gpus_idle.idle(job.params, max(part.world_size for part in parts))
    total = len(MARKS) * sum(part.world_size for part in parts)
    with tempfile.TemporaryDirectory(prefix="enginery-build-") as scratch:
        site = _Site(
            toolchain=toolchain,
            devices=devices,
            earlier=job.places.tuning,
            scratch=Path(scratch),
        )
        done = 0
        for part in parts:
            _build_part(viewed(part, site.scratch), site, out / part.name, _Meter(progress, done, total))
            done += len(MARKS) * part.world_size
    # After all parts: it adds one part's figures to another's file.
    if any(part.name == DRAFT for part in parts):
        add_draft(out)
    progress(total, total, "phases")


@dataclass(frozen=True, slots=True)
class _Meter:
    """Reports the phases of one part's ranks among all."""

    progress: Progress
    done: int
    total: int

    def __call__(self, marks: int) -> None:
        """The part's ranks have finished so many phases."""
        self.progress(min(self.done + marks, self.total), self.total, "phases")


def _build_part(part: Part, site: _Site, out: Path, meter: _Meter) -> None:
    """Builds one engine into its directory."""
    device, tuning = site.devices[0], out / TUNING
    out.mkdir(exist_ok=True)
    timed = {**part.asked, "options": part.settings.as_param(), "part": part.name}
    key = timing_cache.key_of(device, site.toolchain.versions, timed)
    # Builds keep the timing cache of the served engine only: twins and drafts have other kernels.
    reuse = timing_cache.bring(site.earlier if not part.name else None, tuning, key)
    sizes = [file.stat().st_size for file in part.rank_files]
    free = psutil.virtual_memory().available
    at_once = workers(sizes, len(site.devices), device.memory_bytes, free)
    log = BuildLog()
    usage = _run(part, site, out, at_once, log, meter)
    # Sealed after a build that ended well: a cache without its key is not used again.
    timing_cache.finish(tuning, key)
    # Before paths are rewritten: it reads config.json as the builder left it.
    differences = checked(part, out, log, site.toolchain.version)
    relative_places(out)
    shutil.copytree(part.checkpoint / "tokenizer", out / "tokenizer")
    built = Built(part=part, toolchain=site.toolchain, device=device, log=log, differences=differences)
    write_json(out / "engine.json", describe(built, out))
    report = {"gpus": [gpu.index for gpu in site.devices], **_report(log, usage, at_once, reuse)}
    write_json(tuning / REPORT, report)


def _run(part: Part, site: _Site, out: Path, at_once: Workers, log: BuildLog, meter: _Meter) -> process.Usage:
    """Runs trtllm-build; BuildFailed with its own errors, the end of its log, and what may help."""

    def on_line(line: str) -> None:
        sys.stdout.write(line + "\n")
        log.on_line(line)
        meter(log.marks)

    work = process.Job(
        name=" ".join(filter(None, ["trtllm-build", part.name])),
        argv=argv_of(part, site.toolchain, out, at_once.count),
        log=site.scratch / f"{part.name or 'target'}.log",
        timeout_s=math.inf,
        env=clean_env(os.environ, site.devices),
        guarded=True,
    )
    try:
        return process.run(work, on_line=on_line)
    except BuildFailed as exc:
        raise BuildFailed("\n  ".join([str(exc), *_causes(log)])) from None
    finally:
        sys.stdout.flush()


def argv_of(part: Part, toolchain: Toolchain, out: Path, count: int) -> list[str]:
    """The command that builds a part, `count` ranks at once; pure."""
    cache = out / TUNING / timing_cache.CACHE
    run = BuildRun(
        checkpoint=part.checkpoint,
        out=out,
        timing_cache=cache,
        # Ranks built at once read a copy, because one of them writes the other file.
        input_cache=out / TUNING / timing_cache.COPY if count > 1 else cache,
        workers=count,
    )
    arguments, mounts = command(part.settings, run), (part.checkpoint, *part.linked, out)
    if toolchain.launcher == "mpirun":
        ranks = ("-n", str(count), "--allow-run-as-root", toolchain.program("trtllm-build"))
        return toolchain.argv("mpirun", *ranks, *arguments, mounts=mounts)
    return toolchain.argv("trtllm-build", *arguments, mounts=mounts)


def clean_env(env: Mapping[str, str], devices: Sequence[Device]) -> dict[str, str]:
    """Our environment without what leads a foreign Python to our packages, and with these GPUs only."""
    cleaned = {name: value for name, value in env.items() if name != "PYTHONPATH"}
    return {**cleaned, gpus_idle.VISIBLE: gpus_idle.visible(devices)}


def _causes(log: BuildLog) -> list[str]:
    """Errors in the log, and what to do about them."""
    errors = list(log.errors)[:SHOWN_ERRORS]
    lines = [f"error in the log: {text}" for text in errors]
    # A process killed for host memory leaves no line in the log, so that hint is for all other ends.
    return [*lines, GPU_MEMORY if log.out_of_memory else HOST_MEMORY]


def _report(log: BuildLog, usage: process.Usage, at_once: Workers, reuse: Reuse) -> dict[str, Any]:
    return {
        "seconds": usage.seconds,
        "peak_memory_bytes": usage.peak_memory_bytes,
        "workers": {"count": at_once.count, "why": at_once.why},
        "timing_cache": {"reused": reuse.used, "reason": reuse.reason},
        **log.report(),
    }
