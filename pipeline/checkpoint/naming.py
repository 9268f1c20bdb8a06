"""Which names a TensorRT-LLM release gives tensors and fields of `config.json`; pure.

Modules carry the newest names. For a family that had others up to some release, a checkpoint's `names` are
that release as major.minor, or `newest`. Families that never changed have no such parameter, so names are
part of a key only where they decide bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.checkpoint.families import family
from pipeline.checkpoint.loadable import numbers
from pipeline.checkpoint.modules import Older
from pipeline.checkpoint.tensor_parts import LocalTensor

NEWEST = "newest"


def names(architecture: str, version: str) -> str:
    """The `names` that a version wants of an architecture; an empty version is the newest."""
    # Names changed with minor releases only; a patch of 0.15 reads those of 0.15.
    release = numbers(version)[:2]
    return next((each.last for each in family(architecture).older if release <= numbers(each.last)), NEWEST)


def param(architecture: str, version: str) -> str | None:
    """The `names` of a sharded checkpoint for that version; None for a family whose names never changed."""
    return names(architecture, version) if family(architecture).older else None


def older(architecture: str, release: str) -> Older:
    """What differs from the newest names; a ValueError for names that the architecture never had."""
    by_release = {NEWEST: Older("")} | {each.last: each for each in family(architecture).older}
    if release not in by_release:
        raise ValueError(f"names {release!r}; {architecture} has {', '.join(map(repr, by_release))}")
    return by_release[release]


def renamed(ranks: Sequence[Sequence[LocalTensor]], old: Older) -> list[list[LocalTensor]]:
    """The same tensors under the older names."""
    return [[replace(each, name=_rename(each.name, old)) for each in tensors] for tensors in ranks]


def config(newest: Mapping[str, Any], old: Older) -> dict[str, Any]:
    """Changes the newest `config.json` into the older one, names of modules among it."""
    config = dict(old.config(newest))
    block = dict(config["quantization"])
    if "exclude_modules" in block:
        block["exclude_modules"] = [_rename(each, old) for each in block["exclude_modules"]]
    return {**config, "quantization": block}


def quant_cfg(newest: Mapping[str, Any], old: Older) -> dict[str, Any]:
    """The same of `quant_cfg.json`."""
    layers = {_rename(name, old): block for name, block in newest["quantized_layers"].items()}
    return {**newest, "quantized_layers": layers}


def _rename(name: str, old: Older) -> str:
    new, was = old.moved
    # With the leading dot: `mlp.shared_expert` must not match inside another module's name.
    return name.replace(f".{new}", f".{was}", 1) if new else name
