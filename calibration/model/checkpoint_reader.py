"""Reads the safetensors files of a source artifact one tensor at a time.

The plan has compared its tensors with config.json, and the source step has verified its files.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from calibration.errors import CheckpointError
from calibration.model.checkpoint_writer import DTYPES, TensorEntry
from calibration.step_progress import Progress

TYPES = {name: dtype for dtype, name in DTYPES.items()}
MODEL_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Source:
    """A source checkpoint: its configuration, and the file of each tensor."""

    root: Path
    config: dict[str, Any]
    files: dict[str, str]
    """Tensor name -> name of the file that holds it, file by file."""

    @classmethod
    def open(cls, root: Path) -> "Source":
        """Reads configuration and file names of the source step's copy, which is whole."""
        return cls(root, json.loads((root / "config.json").read_text(encoding="utf-8")), _files(root))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the model's weights, as config.json says it."""
        # `dtype` is the newer name of the field, `torch_dtype` the older one.
        return MODEL_DTYPES[self.config.get("dtype") or self.config["torch_dtype"]]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor in file order; reads one at a time into its own memory.

        Files are not memory-mapped: mapped pages would count as this process's memory until they are closed.
        """
        for file in dict.fromkeys(self.files.values()):
            with (self.root / file).open("rb") as handle:
                start, entries = read_header(handle)
                for name in [name for name, holder in self.files.items() if holder == file]:
                    yield name, _read(handle, start, entries[name])

    def check_finite(self, progress: Progress) -> None:
        """Raises CheckpointError that names the file and the tensor of the first NaN or infinity."""
        for done, (name, tensor) in enumerate(self.tensors()):
            progress(done, len(self.files), "tensors checked")
            self.require_finite(name, tensor)

    def require_finite(self, name: str, tensor: torch.Tensor) -> None:
        """Raises CheckpointError that names the file and a tensor that holds NaN or infinities."""
        if not tensor.is_floating_point() or not tensor.numel():
            return
        # Both are NaN if any element is, so two values decide for the whole tensor.
        low, high = tensor.aminmax()
        if torch.isfinite(low) and torch.isfinite(high):
            return
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{self.files[name]}: tensor {name} holds {bad} NaN or infinite values; "
            "get the checkpoint again or repair it"
        )


def read_header(handle: BinaryIO) -> tuple[int, dict[str, TensorEntry]]:
    """Offset of the data in an open safetensors file, and its entries by tensor name."""
    size = int.from_bytes(handle.read(8), "little")
    entries: dict[str, TensorEntry] = json.loads(handle.read(size))
    return 8 + size, entries


def _read(handle: BinaryIO, start: int, entry: TensorEntry) -> torch.Tensor:
    """One tensor of an open file whose data starts at `start`."""
    begin, end = entry["data_offsets"]
    data = torch.empty(end - begin, dtype=torch.uint8)
    handle.seek(start + begin)
    # Read into the tensor's own memory, without a copy through bytes.
    if handle.readinto(data.numpy()) < len(data):  # type: ignore[attr-defined]
        raise CheckpointError(f"{handle.name}: the file became shorter while it was read; get it again")
    return data.view(TYPES[entry["dtype"]]).reshape(entry["shape"])


def _files(root: Path) -> dict[str, str]:
    """Tensor name -> file name, from one model.safetensors or from the index of several."""
    whole = root / "model.safetensors"
    if whole.is_file():
        with safe_open(whole, framework="pt") as handle:
            return dict.fromkeys(handle.keys(), whole.name)
    index = root / "model.safetensors.index.json"
    files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return dict(sorted(files.items(), key=lambda item: item[1]))
