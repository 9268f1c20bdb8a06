"""TensorRT's timing cache: what kernels took on one type of GPU, kept under a key and refused under another.

`trtllm-build` reads a cache without looking whether TensorRT took it, writes it after the first rank only,
and by default to `model.cache` in the current directory, where builds overwrite one another's. Here every
build has its own file, the same for input and output, so that ranks built one after another share it; beside
it stands what it is valid for. A build of the same settings gets it back through the store's tuning
directory.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import digest
from pipeline.trtllm.gpus_idle import Device

CACHE = "timing.cache"
KEY = "timing.json"
"""What the cache is valid for, and the digest of its bytes."""

COPY = "input.cache"
"""The earlier cache again, while ranks are built at once: it is only read."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """Whether an earlier cache was taken, or why not."""

    used: bool
    reason: str


def key_of(device: Device, versions: Mapping[str, str], built: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a time depends on: GPU, driver, TensorRT, TensorRT-LLM, and what is built."""
    return {
        "gpu": device.name,
        "sm": device.sm,
        "driver": device.driver,
        "tensorrt": versions.get("tensorrt", ""),
        "tensorrt_llm": versions.get("tensorrt_llm", ""),
        "built": digest.of_json(dict(built)),
    }


def bring(earlier: Path | None, tuning: Path, key: Mapping[str, Any]) -> Reuse:
    """Copies an earlier build's cache into `tuning` if it is valid for `key`; else gives the reason."""
    tuning.mkdir(exist_ok=True)
    if earlier is None or not (earlier / CACHE).is_file():
        return Reuse(used=False, reason="no earlier build of these settings kept one")
    if not (earlier / KEY).is_file():
        return Reuse(used=False, reason=f"{KEY} is missing beside it")
    valid_for = json.loads((earlier / KEY).read_text())
    differing = [
        f"{name} {valid_for.get(name)!r}, now {value!r}"
        for name, value in key.items()
        if valid_for.get(name) != value
    ]
    if differing:
        return Reuse(used=False, reason=f"it is for {'; '.join(differing)}")
    # trtllm-build does not look whether TensorRT took a cache, so a damaged one is found here or never.
    if digest.of_file(earlier / CACHE) != valid_for.get("sha256"):
        return Reuse(used=False, reason="its bytes are not those that were kept")
    # Both, because how many ranks are built at once is not known here.
    for name in (CACHE, COPY):
        shutil.copyfile(earlier / CACHE, tuning / name)
    return Reuse(used=True, reason="")


def finish(tuning: Path, key: Mapping[str, Any]) -> None:
    """Says what the cache of a finished build is valid for; without a cache, nothing."""
    # It served this build only, and is the earlier cache once more.
    (tuning / COPY).unlink(missing_ok=True)
    cache = tuning / CACHE
    if cache.is_file():
        sealed = {**key, "sha256": digest.of_file(cache)}
        (tuning / KEY).write_text(json.dumps(sealed, indent=1, sort_keys=True) + "\n")
