"""What must hold of a quantized checkpoint's scales before weights can simply be copied."""

from collections.abc import Iterator

import numpy as np

from pipeline.checkpoint.families import family
from pipeline.checkpoint.modules import Family
from pipeline.errors import SourceError
from pipeline.models.shape import ModelShape
from pipeline.weights.tensors import Checkpoint

SHARED_TENSORS = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
"""Tensors that fused modules share; a `weight_scale` only if it is one per tensor."""


def check_scales(checkpoint: Checkpoint, shape: ModelShape) -> None:
    """Checks that scales are positive and finite, and that fused modules share theirs; else a SourceError."""
    problems = [*_find_unusable(checkpoint), *_find_unshared(checkpoint, shape)]
    if problems:
        detail = "\n".join(f"  {problem}" for problem in problems[:20])
        raise SourceError(
            f"{checkpoint.directory}: {len(problems)} scales cannot be used; "
            f"quantize the checkpoint again\n{detail}"
        )


def _find_unusable(checkpoint: Checkpoint) -> Iterator[str]:
    for name, entry in checkpoint.entries.items():
        if name.endswith(("_scale", "_scale_2")):
            # A scale of zero makes the weights zero or infinite at run time without an error.
            values = checkpoint.floats(name)
            if not bool(np.all(np.isfinite(values) & (values > 0))):
                yield f"{name}: holds values that are not finite or not above 0"
            checkpoint.drop_pages(entry, 0, entry.nbytes)


def _find_unshared(checkpoint: Checkpoint, shape: ModelShape) -> Iterator[str]:
    kin = family(shape.architecture)
    for layer in range(shape.num_layers):
        for group, tensors in _list_shared(kin, shape):
            for tensor in tensors:
                names = [f"{kin.layers}.{layer}.{module}.{tensor}" for module in group]
                yield from _compare_scales(checkpoint, names)


def _list_shared(kin: Family, shape: ModelShape) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yields modules of a layer and the tensors that they share; a stack's experts share the input scale."""
    yield from ((group, SHARED_TENSORS) for group in kin.shared)
    for stack in kin.stacks(shape):
        yield stack.sources, ("input_scale",)
        yield from ((expert, ("weight_scale",)) for expert in stack.by_expert)


def _compare_scales(checkpoint: Checkpoint, names: list[str]) -> Iterator[str]:
    entries = [checkpoint.entries.get(name) for name in names]
    first = entries[0]
    # `shape` is () for one scale per tensor; only those must be equal across a fused linear.
    if first is None or (names[0].endswith("weight_scale") and first.shape):
        return  # a missing tensor is the audit's business; per-channel and per-block scales stay apart
    for name, entry in zip(names[1:], entries[1:], strict=True):
        if entry is not None and not checkpoint.same(name, names[0]):
            yield f"{name}: differs from {names[0]}; modules that runtimes fuse must share it"
