"""Writes safetensors files of bounded size, tensor by tensor, in bounded memory, and their index."""

import json
from pathlib import Path
from typing import BinaryIO, Self, TypedDict

import torch

MAX_FILE_BYTES = 4 << 30
"""Size of a file, about."""
SMALL_BYTES = 1 << 20
"""Smaller tensors are buffered until their file ends; larger ones are written at once."""
MAX_HELD_BYTES = 64 << 20
"""Most bytes buffered before a file ends: together with one large tensor, the memory that writing needs."""
HEADER_BYTES = 256 << 10
"""Space reserved for the header of a file whose tensors are written before all of them are known."""
ALIGNMENT = 8
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in a safetensors header."""


class TensorEntry(TypedDict):
    """A tensor in the header of a safetensors file."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]
    """First byte and byte behind the last, counted from the end of the header."""


class CheckpointWriter:
    """Writes tensors as model.safetensors, or as numbered files with an index, if the block succeeds."""

    def __init__(self, out: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self.out, self.max_file_bytes = out, max_file_bytes
        self.files: list[list[str]] = []
        """Tensor names of each file written."""
        self.part: _Part | None = None
        self.total_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        # After an error nothing is renamed, so that no file looks complete.
        elif self.part is not None:
            self.part.handle.close()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add a tensor; ends the current file first if it would become too large."""
        if self.part is not None and not self.part.takes(name, tensor, self.max_file_bytes):
            self._end()
        if self.part is None:
            self.part = _Part(self._path(len(self.files) + 1))
        # The file has the bytes in the order of the elements; a view may have another.
        self.part.add(name, tensor.detach().cpu().contiguous())
        self.total_bytes += tensor.nbytes

    def _finish(self) -> None:
        """Write buffered tensors, rename the files to their final names, and write the index of several."""
        self._end()
        count = len(self.files)
        if count == 1:
            # Named only now, since the names of several files contain their number.
            self._path(1).rename(self.out / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self.files, start=1):
            final = f"model-{number:05}-of-{count:05}.safetensors"
            self._path(number).rename(self.out / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _end(self) -> None:
        if self.part is not None:
            self.files.append(self.part.end())
            self.part = None

    def _path(self, number: int) -> Path:
        return self.out / f"part-{number}.safetensors"


class _Part:
    """One file: large tensors first, in order of arrival, then the small ones by element size.

    This order keeps every tensor aligned, as readers need it; the header in front is padded with blanks.
    """

    def __init__(self, path: Path) -> None:
        self.handle: BinaryIO = path.open("wb")
        self.entries: dict[str, TensorEntry] = {}
        self.buffered: dict[str, torch.Tensor] = {}
        self.buffered_bytes = self.data_bytes = self.header_bytes = 0

    def takes(self, name: str, tensor: torch.Tensor, max_bytes: int) -> bool:
        """Whether a tensor still fits."""
        return (
            self.data_bytes + self.buffered_bytes + tensor.nbytes <= max_bytes
            and self.buffered_bytes + tensor.nbytes * (not _large(tensor)) <= MAX_HELD_BYTES
            and self.header_bytes + _entry_bytes(name) <= HEADER_BYTES
        )

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Writes a large tensor, keeps a small one."""
        self.header_bytes += _entry_bytes(name)
        if not _large(tensor):
            self.buffered[name] = tensor
            self.buffered_bytes += tensor.nbytes
            return
        # The header's size is unknown until the file ends: its room is skipped, and filled at the end.
        if not self.entries:
            self.handle.seek(8 + HEADER_BYTES)
        self._write(name, tensor)

    def end(self) -> list[str]:
        """Writes the small tensors and the header; returns all names."""
        streamed = len(self.entries)
        # Wide elements first: each then starts at a multiple of its size, since all before it have such
        # sizes.
        order = sorted(self.buffered, key=lambda name: (-self.buffered[name].element_size(), name))
        start = self.data_bytes
        for name in order:
            self._enter(name, self.buffered[name])
        header = json.dumps(
            {"__metadata__": {"format": "pt"}, **self.entries}, separators=(",", ":")
        ).encode()
        # Data that is on disk already fixes the header's room; otherwise it is just rounded up.
        size = HEADER_BYTES if streamed else -(-len(header) // ALIGNMENT) * ALIGNMENT
        self.handle.seek(0)
        self.handle.write(size.to_bytes(8, "little") + header.ljust(size))
        self.handle.seek(8 + size + start)
        for name in order:
            self.handle.write(_bytes(self.buffered[name]))
        self.handle.close()
        return list(self.entries)

    def _write(self, name: str, tensor: torch.Tensor) -> None:
        self._enter(name, tensor)
        self.handle.write(_bytes(tensor))

    def _enter(self, name: str, tensor: torch.Tensor) -> None:
        """Record the offsets of a tensor."""
        start, self.data_bytes = self.data_bytes, self.data_bytes + tensor.nbytes
        self.entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, self.data_bytes],
        }


def _large(tensor: torch.Tensor) -> bool:
    """Whether a tensor is written at once; after one of an odd size, the next would not be aligned."""
    return tensor.nbytes >= SMALL_BYTES and tensor.nbytes % ALIGNMENT == 0


def _entry_bytes(name: str) -> int:
    """Bytes that a tensor's entry in the header takes, at most: name, shape and two offsets of 20 digits."""
    return len(name.encode()) + 160


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
