"""What TensorRT-LLM's autotuner found on one GPU: kept beside the engine, and refused anywhere else.

The library writes its findings where an environment variable says, and reads them back without a look at
the GPU, the capability and the version that it has written into the file: it even takes them over
(`_deserialize_metadata` of `tensorrt_llm/_torch/autotuner.py`, 1.3). So they are checked here. Versions of
1.2 write a file per rank, later ones one file with an entry per rank; 1.0 and 1.1 write none.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "autotuner_cache.json"
IDENTITY = "identity.json"

NAMES = {
    "gpu": "GPU", "sm": "compute capability", "tensorrt_llm": "TensorRT-LLM", "world_size": "number of ranks",
    "key": "model and options",
}  # fmt: skip
"""What must be the same where findings are used again, and its name for people."""


def identity(toolchain: Mapping[str, Any], world_size: int, key: str) -> dict[str, Any]:
    """What the findings hold for; `toolchain` is what of it and of the host enters the engine's key."""
    return {
        "gpu": toolchain["gpu"], "sm": toolchain["sm"], "tensorrt_llm": toolchain["versions"]["tensorrt_llm"],
        "world_size": world_size, "key": key,
    }  # fmt: skip


def stale(identity: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Why findings made under one identity must not be used under another; empty: they may be."""
    different = [
        f"{label} is {current.get(name)}, they were made on {identity.get(name)}"
        if name in ("gpu", "sm")
        else f"{label} differ: {identity.get(name)} then, {current.get(name)} now"
        for name, label in NAMES.items()
        if identity.get(name) != current.get(name)
    ]
    return "; ".join(different)


def cache_files(tuning: Path) -> list[Path]:
    """The autotuner's files in a directory: one, or one per rank."""
    stem, suffix = FILE.rsplit(".", 1)
    # IDENTITY is no match: it is ours, and the library does not read it.
    return sorted(path for path in tuning.glob(f"{stem}*.{suffix}") if path.is_file())


def usable(tuning: Path, world_size: int) -> str:
    """Why the library could not load what is in the directory; empty: it can.

    One file must have an entry for each rank, else the library stops with an assertion.
    """
    files = cache_files(tuning)
    if not files:
        return "the warm-up wrote no cache: no operator asked for tuning, or this version keeps none"
    whole = tuning / FILE
    # 1.2 writes a file per rank, later versions one file with an entry per rank.
    if not whole.is_file():
        stem, suffix = FILE.rsplit(".", 1)
        missing_ranks = [r for r in range(world_size) if not (tuning / f"{stem}.rank{r}.{suffix}").is_file()]
        return f"no file of rank {missing_ranks[0]}" if missing_ranks else ""
    entries = json.loads(whole.read_text())
    missing = [f"rank_{r}" for r in range(world_size) if f"rank_{r}" not in entries]
    return f"{FILE} has no {missing[0]}" if missing else ""


def offered(earlier: Path | None, current: Mapping[str, Any]) -> str:
    """Why an earlier build's findings cannot be the start of a new warm-up; empty: they can."""
    if earlier is None or not (earlier / IDENTITY).is_file() or not cache_files(earlier):
        return "there are none"
    return stale(json.loads((earlier / IDENTITY).read_text()), current) or usable(
        earlier, current["world_size"]
    )


def copy(source: Path, target: Path) -> None:
    """Copies the autotuner's files; the library writes to what it is given."""
    target.mkdir(parents=True, exist_ok=True)
    for file in cache_files(source):
        shutil.copyfile(file, target / file.name)


def read_identity(tuning: Path) -> dict[str, Any] | None:
    """What the findings in a directory hold for; None where there are none."""
    file = tuning / IDENTITY
    return json.loads(file.read_text()) if file.is_file() else None
