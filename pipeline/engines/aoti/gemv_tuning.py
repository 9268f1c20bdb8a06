"""Measures both ways of multiplying one token for every shape of linear layer, and keeps the times.

Inductor's own max-autotune cannot be used: its CPU templates repack weights into constants of the code,
under names of their own, which ends sharing of code and weights kept outside of it (torch 2.13).
"""

import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveFloat, ValidationError
from torch import nn

from artifacts import digest
from pipeline.engines.aoti.linear import Linear
from recipes.frozen import Frozen

FOLDER = "linear"
"""Folder of the tuning directory, a file per CPU and shape: builds of other models add theirs."""

ROUNDS, CALLS = 20, 20


class Times(Frozen):
    """What one layer takes on one CPU."""

    cpu: str
    layer: str
    """Its class, shape and type."""
    seconds: dict[str, PositiveFloat]
    """Way of multiplying -> seconds."""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{FOLDER}/{digest.of_json({'cpu': self.cpu, 'layer': self.layer})[:16]}.json"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Where times are kept."""

    kept: Path
    """Tuning directory of the engine that is built."""
    earlier: Path | None
    """That of an earlier build."""


def use_faster_ways(stage: nn.Module, tuning: Tuning, options: Mapping[str, Any]) -> dict[str, str]:
    """Sets the faster way on every linear layer of a stage that has a choice; returns layer -> way.

    Weights must be real. What was not measured on this CPU is; all times that count are then in the engine's
    directory.
    """
    cpu, ways = cpu_name(), {}
    for linear in (each for each in _linears(stage) if len(each.ways) > 1):
        times = known(linear, cpu, tuning)
        if times is None:
            seconds = {way: _seconds(linear, way, options) for way in linear.ways}
            times = Times(cpu=cpu, layer=linear.key, seconds=seconds)
        # Also resets the way, which timing left at the last one.
        linear.way = ways[linear.key] = min(linear.ways, key=times.seconds.__getitem__)
        file = tuning.kept / times.file
        # Times of an earlier build are written here too, for the build after this one.
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(times.model_dump_json(indent=1) + "\n")
    return ways


def cpu_name() -> str:
    """What this machine's processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def known(linear: Linear, cpu: str, tuning: Tuning) -> Times | None:
    """What was measured of a layer, by this build or an earlier one; None where nothing holds for it."""
    # Only for the name, in which seconds have no part.
    name = Times(cpu=cpu, layer=linear.key, seconds={}).file
    # This build's own first: layers of one shape recur, and are measured once.
    for directory in (tuning.kept, tuning.earlier):
        try:
            times = Times.model_validate_json((directory / name).read_bytes()) if directory else None
        except (OSError, ValidationError):
            continue
        # The file's name is a shortened digest, so its contents decide; a new way has to be measured.
        if times and (times.cpu, times.layer, {*times.seconds}) == (cpu, linear.key, {*linear.ways}):
            return times
    return None


def _linears(stage: nn.Module) -> Iterator[Linear]:
    return (module for module in stage.modules() if isinstance(module, Linear))


def _seconds(linear: Linear, way: str, options: Mapping[str, Any]) -> float:
    """Times one layer, compiled as it will be."""
    linear.way = way
    # Forgets what was compiled for the other way.
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: linear(x, single=True), options=dict(options))
    x = torch.randn((1, 1, linear.num_in)).to(linear.dtype)
    best = float("inf")
    with torch.inference_mode():
        compiled(x)  # compiles, so it is not timed
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(CALLS):
                compiled(x)
            # The fastest round: whatever else the host does only adds time.
            best = min(best, (time.perf_counter() - start) / CALLS)
    return best
