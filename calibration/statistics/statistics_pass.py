"""Records statistics for all formats in one pass over the calibration set: step statistics.

Runs in a child process. Layer by layer: memory is that of two layers, whatever the model's size. What is
finished survives kill -9 in the place `resume` (resume.py).
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
import transformers

from calibration.errors import CheckpointError
from calibration.model.checkpoint_reader import Source
from calibration.parameters import StatisticsJob, StatisticsParams
from calibration.statistics.batches import load_batches
from calibration.statistics.hidden import HiddenStates
from calibration.statistics.layer_sweep import Sweep
from calibration.statistics.memory import Caps, Peak, sizes_of
from calibration.statistics.resume import Partial, identity
from calibration.statistics.skeleton import Skeleton
from calibration.statistics.statistics_artifact import LAYOUT_VERSION, layer_file
from calibration.statistics.weight_reading import Reader, extents
from calibration.step_progress import Progress


def build(job: StatisticsJob, progress: Progress) -> None:
    """Writes the layers' files and report.json; artifact.py says what is in them.

    Raises CheckpointError or DataError for inputs that cannot be used, ActivationsUnusable where statistics
    would be worthless, ResumeRefused for another pass's leftovers, MemoryExceeded above the host's cap.
    """
    params, places, out = job.params, job.places, job.out
    assert places.resume is not None
    source = Source.open(job.inputs["source"])
    device, search = _device(params.device), params.record == "all"
    skeleton = Skeleton(source.root, device)
    batches = load_batches(job.inputs["calibration_set"], params.batch_size, device)
    seq_len = batches[0].tokens_BT.shape[1]
    sizes = sizes_of(skeleton.config, skeleton.dtype, seq_len)
    caps = Caps(places.memory, sizes, len(batches[0].tokens_BT) * seq_len, search=search)
    # Before weights and hidden states are loaded, so that the cap holds for them.
    caps.impose(device)
    partial, damage = Partial.open(places.resume, identity(job, _versions()))
    # One by one: the last batch may have fewer sequences.
    shapes = [(*batch.tokens_BT.shape, sizes.hidden_size) for batch in batches]
    hidden_bytes = sum(torch.Size(shape).numel() for shape in shapes) * sizes.element_bytes
    hidden = HiddenStates(partial.root, shapes, skeleton.dtype, device, resident=caps.hold(hidden_bytes))
    unfinished = len(partial.layers) < len(skeleton.layers)
    # Finished layers need no hidden states, so only an unfinished pass has to take them up.
    if partial.has_inputs and unfinished and not hidden.take_up(len(partial.layers)):
        damage = partial.discard("hidden states are incomplete")
    reader = Reader(extents(source), device)
    sweep = Sweep(
        skeleton=skeleton,
        reader=reader,
        hidden=hidden,
        batches=batches,
        partial=partial,
        search=search,
        progress=progress,
        every_expert=places.every_expert,
    )
    resumed, started = len(partial.layers), time.monotonic()
    try:
        sweep.run(caps.check)
    # The allocator refuses at the cap, so the message must name the cap's setting.
    except torch.OutOfMemoryError as exc:
        raise caps.exceeded(exc) from exc
    finally:
        # Threads end also after an error: otherwise the process would wait for their reads.
        reader.close()
        hidden.close()
    seconds = time.monotonic() - started
    for layer in range(len(skeleton.layers)):
        _deliver(partial.root / layer_file(layer), out / layer_file(layer))
    run = _Run(damage, resumed, seconds, caps.report(device))
    (out / "report.json").write_text(json.dumps(_report(params, sweep, run), indent=2) + "\n")


class StatisticsReport(TypedDict):
    """Contents of report.json."""

    layout_version: int
    record: str
    tokens: int
    sequences: int
    batch_size: int
    device: str
    seconds: float
    tokens_per_s: float
    layer_seconds: list[float]
    layers_resumed: int
    memory_bytes: dict[str, Peak]
    """By kind of memory."""
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Run:
    """What this run did of the pass."""

    damage: str
    """Why earlier work was discarded; empty if none was."""
    resumed: int
    """Layers that were finished before."""
    seconds: float
    memory: dict[str, Peak]
    """By kind of memory."""


def _deliver(file: Path, target: Path) -> None:
    """Link a finished file into the artifact; the original stays until the artifact is committed."""
    try:
        os.link(file, target)
    except OSError:  # another filesystem, or one without hard links
        shutil.copyfile(file, target)


def _report(params: StatisticsParams, sweep: Sweep, run: _Run) -> StatisticsReport:
    """Contents of report.json; seconds and tokens per second are those of this run."""
    layers = sweep.partial.layers
    num_run = len(layers) - run.resumed
    damage = [run.damage] if run.damage else []
    return {
        "layout_version": LAYOUT_VERSION,
        "record": params.record,
        "tokens": sweep.num_tokens,
        "sequences": sum(len(batch.tokens_BT) for batch in sweep.batches),
        "batch_size": params.batch_size,
        "device": torch.cuda.get_device_name() if params.device == "cuda" else "cpu",
        "seconds": round(run.seconds, 3),
        # Resumed layers cost this run nothing, so they do not count towards its speed.
        "tokens_per_s": round(sweep.num_tokens * num_run / len(layers) / max(run.seconds, 1e-9), 1),
        "layer_seconds": [round(layer["seconds"], 4) for layer in layers],
        "layers_resumed": run.resumed,
        "memory_bytes": run.memory,
        "warnings": [*damage, *(warning for layer in layers for warning in layer["warnings"])],
    }


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("the plan was made for a GPU, but PyTorch sees none; install its CUDA build")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)  # its index sets the cap


def _versions() -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "statistics layout": LAYOUT_VERSION,
    }
