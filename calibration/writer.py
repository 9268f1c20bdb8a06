"""Writes safetensors files of bounded size, tensor by tensor, and their index."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

MAX_FILE_BYTES = 2 << 30
"""Bytes collected before a file is written: bounds the memory that writing takes."""


class CheckpointWriter:
    """Collects tensors and writes them as model.safetensors, or as numbered files with an index."""

    def __init__(self, out: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self.out, self.max_file_bytes = out, max_file_bytes
        self.files: list[list[str]] = []
        """Tensor names of each file written."""
        self.pending: dict[str, torch.Tensor] = {}
        self.pending_bytes = self.total_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes a tensor; writes the ones before it when together they would be too large for a file."""
        if self.pending and self.pending_bytes + tensor.nbytes > self.max_file_bytes:
            self._flush()
        self.pending[name] = tensor.contiguous()
        self.pending_bytes += tensor.nbytes
        self.total_bytes += tensor.nbytes

    def close(self) -> None:
        """Writes what is left, gives the files their final names, and writes the index of several."""
        self._flush()
        count = len(self.files)
        if count == 1:
            self._part(1).rename(self.out / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self.files, start=1):
            final = f"model-{number:05}-of-{count:05}.safetensors"
            self._part(number).rename(self.out / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _flush(self) -> None:
        if self.pending:
            self.files.append(list(self.pending))
            save_file(self.pending, self._part(len(self.files)), metadata={"format": "pt"})
            self.pending, self.pending_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self.out / f"part-{number}.safetensors"
