"""Safetensors without torch: checked headers and memory-mapped tensors.

A file is 8 bytes (header length, little endian), the header (JSON: name -> dtype, shape, data_offsets),
then the data.
"""

import math
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import SourceError
from pipeline.models.model_json import MODEL, open_regular, parse_json, read_json, shortened

NUMPY_TYPES = {
    "F64": np.float64, "I64": np.int64, "U64": np.uint64,
    "F32": np.float32, "I32": np.int32, "U32": np.uint32,
    "F16": np.float16, "BF16": np.uint16, "I16": np.int16, "U16": np.uint16,
    "F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""Element types; those numpy lacks (bfloat16, float8) are read as unsigned integers of their size."""

MAX_HEADER_BYTES = MODEL.nbytes
"""Longest header that is read; the safetensors format allows three times as many."""

MAX_AXES = 16

COMPARED_BYTES = 8 << 20
"""Bytes compared at a time."""
NONFINITE: dict[str, tuple[Any, int]] = {
    "F64": (np.uint64, 0x7FF0000000000000), "F32": (np.uint32, 0x7F800000), "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80), "F8_E4M3": (np.uint8, 0x7F), "F8_E5M2": (np.uint8, 0x7C),
}  # fmt: skip
"""Per floating-point type: the unsigned integer of its size, and the bits that NaN and infinity set."""

Array = npt.NDArray[Any]


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a safetensors dtype."""
    return np.dtype(NUMPY_TYPES[dtype]).itemsize


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: bytes `start` to `end` of `file`."""

    name: str
    dtype: str
    """Safetensors name: BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.end - self.start


def header_end(prefix: bytes) -> int:
    """Where the header of a safetensors file ends and its data starts, from the file's first eight bytes."""
    return 8 + int.from_bytes(prefix[:8], "little")


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Reads and checks the header of a safetensors file; a truncated or broken file is a SourceError."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        data_start = header_end(file.read(8))
        if size_bytes < 8 or data_start > min(size_bytes, 8 + MAX_HEADER_BYTES):
            raise SourceError(
                f"{path}: {data_start} bytes expected for the header alone, {size_bytes} found, at most "
                f"{MAX_HEADER_BYTES} are read; the file is truncated or no safetensors file"
            )
        fields = parse_json(file.read(data_start - 8), f"{path}: header")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
        raise SourceError(
            f"{path}: header: __metadata__ is {shortened(metadata)}; it must be an object of strings: "
            "fetch the file again"
        )
    entries = [_parse_entry(path, name, field, data_start) for name, field in fields.items()]
    _check_layout(path, entries, data_start, size_bytes)
    return {entry.name: entry for entry in entries}


def _parse_entry(path: Path, name: str, field: Any, data_start: int) -> TensorEntry:
    fields: dict[str, Any] = field if isinstance(field, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    has_numpy_type = isinstance(dtype, str) and dtype in NUMPY_TYPES
    if not (has_numpy_type and _are_sizes(shape, MAX_AXES) and _are_sizes(offsets, 2) and len(offsets) == 2):
        raise SourceError(
            f"{path}: tensor {shortened(name)} has dtype {shortened(dtype)}, shape {shortened(shape)} and "
            f"data_offsets {shortened(offsets)}; needed are a dtype of {', '.join(NUMPY_TYPES)}, at most "
            f"{MAX_AXES} sizes and two offsets, all whole numbers from 0 to 2^63 - 1"
        )
    (start, end), expected = offsets, math.prod(shape) * item_bytes(dtype)
    if end - start != expected:
        raise SourceError(
            f"{path}: tensor {shortened(name)} of shape {shape} and dtype {dtype} takes {expected} bytes, "
            f"the header gives it {end - start}; fetch the file again"
        )
    return TensorEntry(name, dtype, tuple(shape), path, data_start + start, data_start + end)


def _are_sizes(values: Any, most: int) -> bool:
    """Says whether a value is a list of at most so many sizes or offsets."""
    if not isinstance(values, list) or len(values) > most:
        return False
    # `type is int` excludes bool, which JSON true and false become.
    return all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_layout(path: Path, entries: Iterable[TensorEntry], data_start: int, size_bytes: int) -> None:
    """Checks that tensors follow one another without gap or overlap and end where the file ends."""
    # Gaps could hide other data, overlaps could alias tensors; the format forbids both.
    position = data_start
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise SourceError(
                f"{path}: tensor {shortened(entry.name)} starts at byte {entry.start}, "
                f"the one before ends at {position}; tensors must follow one another"
            )
        position = entry.end
    if position != size_bytes:
        raise SourceError(
            f"{path}: {position} bytes expected from the header, {size_bytes} found; fetch the file again"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A directory with `config.json` and safetensors files, opened for reading."""

    directory: Path
    config: dict[str, Any]
    entries: dict[str, TensorEntry]

    @cached_property
    def _maps(self) -> dict[Path, mmap.mmap]:
        return {}

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a tensor, mapped, not read: a page is read when it is touched."""
        entry = self.entries[name]
        if entry.nbytes == 0:
            return np.empty(0, np.uint8)
        if entry.file not in self._maps:
            with open_regular(entry.file) as file:
                # The map keeps its own reference to the file; the descriptor can be closed.
                self._maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._maps[entry.file], np.uint8, entry.nbytes, entry.start)

    def array(self, name: str) -> Array:
        """Returns a tensor in its shape, mapped; bfloat16 comes as uint16, float8 as uint8 (NUMPY_TYPES)."""
        entry = self.entries[name]
        return self.raw(name).view(NUMPY_TYPES[entry.dtype]).reshape(entry.shape)

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """Returns a float32, float16 or bfloat16 tensor as a float32 copy; meant for small tensors."""
        entry = self.entries[name]
        if entry.dtype == "BF16":
            return np.asarray(self.array(name).astype(np.uint32) << 16).view(np.float32)
        if entry.dtype not in ("F16", "F32"):
            raise SourceError(f"{entry.file}: tensor {name!r} is {entry.dtype}; F32, F16 or BF16 is needed")
        return self.array(name).astype(np.float32)

    def finite(self, name: str) -> bool:
        """Says whether a floating-point tensor holds neither NaN nor infinity, reading a piece at a time."""
        entry, values = self.entries[name], self.raw(name)
        if entry.dtype not in NONFINITE:
            return True
        bits, mask = NONFINITE[entry.dtype]
        for start in range(0, values.size, COMPARED_BYTES):
            stop = min(start + COMPARED_BYTES, values.size)
            if bool(np.any((values[start:stop].view(bits) & mask) == mask)):
                return False
            self.drop_pages(entry, start, stop)
        return True

    def same(self, name: str, other: str) -> bool:
        """Says whether two tensors hold the same bytes, reading a piece of both at a time."""
        first, second = self.raw(name), self.raw(other)
        if first.size != second.size:
            return False
        for start in range(0, first.size, COMPARED_BYTES):
            stop = min(start + COMPARED_BYTES, first.size)
            if not np.array_equal(first[start:stop], second[start:stop]):
                return False
            self.drop_pages(self.entries[name], start, stop)
            self.drop_pages(self.entries[other], start, stop)
        return True

    def drop_pages(self, entry: TensorEntry, start: int, end: int) -> None:
        """Gives back the memory of bytes `start` to `end` of a mapped tensor; they can be read again."""
        mapped = self._maps.get(entry.file)
        # Inward to whole pages: the pages at both ends may hold a neighbour's bytes.
        first = -(-(entry.start + start) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (entry.start + end) // mmap.PAGESIZE * mmap.PAGESIZE
        if mapped is not None and last > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def open_checkpoint(directory: Path) -> Checkpoint:
    """Opens a checkpoint after checking every header; an incomplete or pickled one is a SourceError."""
    config = read_config(directory)
    index = directory / "model.safetensors.index.json"
    whole = directory / "model.safetensors"
    if whole.exists() or whole.is_symlink():  # a link to nothing is told as such
        return Checkpoint(directory, config, read_header(whole))
    if index.exists() or index.is_symlink():
        return Checkpoint(directory, config, _read_indexed(index))
    pickles = sorted(path.name for path in directory.glob("*") if path.suffix in (".bin", ".pt", ".pth"))
    content = f"holds pickled weights only ({', '.join(pickles)})" if pickles else "holds no weights"
    raise SourceError(
        f"{directory}: {content}; model.safetensors or model.safetensors.index.json is needed, "
        "because only safetensors files are read"
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Reads `config.json` of a checkpoint, whatever else is there."""
    return read_json(directory / "config.json")


def _read_indexed(index: Path) -> dict[str, TensorEntry]:
    directory, document = index.parent, read_json(index)
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        problem = "missing" if "weight_map" not in document else "empty" if weight_map == {} else None
        raise SourceError(
            f"{index}: weight_map is {problem or shortened(weight_map)}; it must be an object of tensor "
            "names and file names: fetch the file again"
        )
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise SourceError(
                f"{index}: places tensor {shortened(tensor)} in "
                f"{shortened(name)}; it must be a plain file name"
            )
    headers = {name: read_header(directory / name) for name in sorted(set(weight_map.values()))}
    listed = set(weight_map.items())
    # Both directions: an index that omits a stored tensor is as broken as one that invents it.
    stored_pairs = {(tensor, name) for name, header in headers.items() for tensor in header}
    for tensor, name in sorted(listed ^ stored_pairs):
        wrong = "of the index is missing" if (tensor, name) in listed else "is not in the index"
        raise SourceError(
            f"{directory / name}: tensor {shortened(tensor)} {wrong}; fetch file and index again"
        )
    return {tensor: headers[name][tensor] for tensor, name in weight_map.items()}
