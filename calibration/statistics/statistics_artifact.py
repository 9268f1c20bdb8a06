"""The statistics artifact: names, shapes and units of what one pass recorded.

    layer-00000.safetensors   one file per decoder layer, in order
    report.json               tokens, batch size, device, memory peaks, times, warnings

Tensors of a linear, named `{module}.{field}` with the module's name in the source checkpoint; I input
channels, O output channels, R rows of the sample:

    input_amax      [I] float32   largest magnitude of each input channel over all tokens
    input_mean      [I] float32   mean magnitude of each input channel
    input_sample    [R, I] source dtype   inputs of R tokens spread evenly over the set
    weight_amax     [O] float32   largest magnitude of each output channel's weights
    weight_in_amax  [I] float32   largest magnitude of each input channel's weights
    awq_smoothing   [I] float32   factors that inputs are multiplied by, as AWQ's search chose them; the same
                                  for linears that runtimes fuse; only where the search was recorded
    awq_loss        [C] float32   relative output error of each candidate exponent 0, 0.1, ..., 1

An expert that saw no token has only the fields of its weights; the sample of one that saw some holds as many
rows as the router sent, up to R, spread evenly over them; no search is recorded of a layer's experts.

Linears that read the same input hold equal copies of the input's tensors, except `input_sample`, which the
first of a fused group holds for all. Tensors of a layer's attention, named `{layer}.self_attn.{field}`;
H key heads:

    key_amax        [H] float32   largest magnitude of each key head, after the rotary embedding
    value_amax      [H] float32   largest magnitude of each value head
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open

from calibration.errors import CheckpointError
from calibration.model.linears import FIRST

LAYOUT_VERSION = 1
"""Raised when files, names, shapes or units change."""


def layer_file(layer: int) -> str:
    """Name of a decoder layer's file."""
    return f"layer-{layer:05}.safetensors"


@dataclass(frozen=True)
class Statistics:
    """An opened statistics artifact; tensors are read when they are asked for."""

    root: Path

    @cached_property
    def places(self) -> dict[str, Path]:
        """Tensor name -> file that holds it."""
        file_of: dict[str, Path] = {}
        for file in sorted(self.root.glob("layer-*.safetensors")):
            with safe_open(file, framework="pt") as handle:
                file_of |= dict.fromkeys(handle.keys(), file)
        return file_of

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, e.g. `model.layers.0.mlp.up_proj.input_amax`; raises CheckpointError without it."""
        if name not in self.places:
            raise CheckpointError(
                f"{self.root}: no {name}; the statistics were recorded for another model or with less"
            )
        with safe_open(self.places[name], framework="pt") as handle:
            value: torch.Tensor = handle.get_tensor(name)
        return value

    def sample(self, module: str) -> torch.Tensor:
        """Inputs [R, I] that a linear saw."""
        block, _, leaf = module.rpartition(".")
        return self.tensor(f"{block}.{FIRST.get(leaf, leaf)}.input_sample")
