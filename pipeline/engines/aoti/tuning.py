"""Measures both ways of multiplying one token for every shape of linear layer, and keeps the times.

Inductor's own max-autotune cannot be used: its CPU templates repack weights into constants of the code,
under names of their own, which ends sharing of code and weights kept outside of it (torch 2.13).
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.engines.aoti.linear import Linear

TABLE = "linear.json"
"""File of the tuning directory: layer and shape -> way -> seconds."""

ROUNDS, CALLS = 20, 20


def use_faster_ways(stage: nn.Module, directory: Path, options: Mapping[str, Any]) -> None:
    """Sets the faster way on every linear layer of a stage with real weights; measures what is not known."""
    times = read_times(directory)
    for linear in _linears(stage):
        if linear.key not in times:
            times[linear.key] = {way: _seconds(linear, way, options) for way in linear.ways}
        linear.way = min(linear.ways, key=times[linear.key].__getitem__)
    directory.mkdir(exist_ok=True)
    (directory / TABLE).write_text(json.dumps(times, indent=1, sort_keys=True) + "\n")


def read_times(directory: Path) -> dict[str, dict[str, float]]:
    """Reads what earlier builds measured; empty without any."""
    table = directory / TABLE
    return json.loads(table.read_text()) if table.is_file() else {}


def _linears(stage: nn.Module) -> Iterator[Linear]:
    return (module for module in stage.modules() if isinstance(module, Linear))


def _seconds(linear: Linear, way: str, options: Mapping[str, Any]) -> float:
    """Times one layer, compiled as it will be."""
    linear.way = way
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: linear(x, single=True), options=dict(options))
    x = torch.randn((1, 1, linear.num_in)).to(linear.dtype)
    best = float("inf")
    with torch.inference_mode():
        compiled(x)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(CALLS):
                compiled(x)
            best = min(best, (time.perf_counter() - start) / CALLS)
    return best
