"""Reads weights by name into buffers, the next layer's while the current one runs.

Files are read, not memory-mapped: mapped pages would count as resident memory, for which there is a cap.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from calibration.errors import CheckpointError
from calibration.model.checkpoint_reader import Source, read_header
from calibration.model.checkpoint_writer import TensorEntry

PIECE_BYTES = 8 << 20
"""Read at once by one thread; two pinned buffers of this size per thread on a GPU's host."""
THREADS = {"cpu": 1, "cuda": 8}
"""Readers: a pass on a CPU leaves one core's time for them."""
ALIGNMENT = 256
"""Bytes; the alignment that allocators give a tensor, so that kernels behave the same."""
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a tensor's bytes are."""

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor."""
        return prod(self.shape) * self.dtype.itemsize


def extents(source: Source) -> dict[str, Extent]:
    """Tensor name -> place, from the files' headers; tensors of types that no weight has are left out."""
    extent_of: dict[str, Extent] = {}
    for file in dict.fromkeys(source.files.values()):
        path = source.root / file
        with path.open("rb") as handle:
            start, header = read_header(handle)
        for name, entry in header.items():
            # A file may hold a tensor that the index places in another one.
            if source.files.get(name) == file and entry["dtype"] in DTYPES:
                extent_of[name] = _extent(path, start, entry)
    return extent_of


def _extent(path: Path, start: int, entry: TensorEntry) -> Extent:
    return Extent(path, start + entry["data_offsets"][0], DTYPES[entry["dtype"]], tuple(entry["shape"]))


class Reader:
    """Loads named tensors onto a device in the background; at most two loads' memory is in use."""

    def __init__(self, places: Mapping[str, Extent], device: torch.device) -> None:
        self.places, self.device = places, device
        self._pieces = ThreadPoolExecutor(THREADS[device.type], thread_name_prefix="read")
        self._loads = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._local = threading.local()
        self._free: list[torch.Tensor] = []
        """Buffers of finished loads, to be used again."""

    def load(self, names: Sequence[str]) -> "Future[Load]":
        """Begins to read tensors."""
        spans, size = self._spans(names)
        # Allocated here, not in the thread, so that the memory belongs to the caller's CUDA stream.
        buffer = self._buffer(size)
        return self._loads.submit(self._load, spans, buffer)

    def release(self, load: "Load") -> None:
        """Reuse a load's memory; its tensors must no longer be in use, on the device either."""
        self._free.append(load.buffer)

    def close(self) -> None:
        """Ends the threads, after the piece each is at."""
        self._loads.shutdown(cancel_futures=True)
        self._pieces.shutdown(cancel_futures=True)

    def _spans(self, names: Sequence[str]) -> tuple[dict[str, int], int]:
        """Tensor name -> its place in the buffer, and the buffer's size."""
        spans, size = {}, 0
        for name in names:
            spans[name] = size
            # Rounded up to the alignment.
            size += -(-self.places[name].nbytes // ALIGNMENT) * ALIGNMENT
        return spans, size

    def _buffer(self, size: int) -> torch.Tensor:
        for number, buffer in enumerate(self._free):
            if buffer.nbytes >= size:
                return self._free.pop(number)
        if (
            self.device.type == "cuda"
        ):  # other streams write to the buffer: its previous user must have finished
            torch.cuda.current_stream(self.device).synchronize()
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def _load(self, spans: Mapping[str, int], buffer: torch.Tensor) -> "Load":
        reads = []
        for name, place in spans.items():
            extent = self.places[name]
            for start in range(0, extent.nbytes, PIECE_BYTES):
                size = min(PIECE_BYTES, extent.nbytes - start)
                piece = buffer[place + start : place + start + size]
                reads.append(self._pieces.submit(self._read, extent.path, extent.offset + start, piece))
        for read in reads:
            read.result()
        tensors = {}
        for name, place in spans.items():
            extent = self.places[name]
            flat = buffer[place : place + extent.nbytes].view(extent.dtype)
            tensors[name] = flat.view(extent.shape)
        return Load(buffer, tensors)

    def _read(self, path: Path, offset: int, piece: torch.Tensor) -> None:
        """Fills a piece of a buffer; returns when it is there, on a GPU too."""
        if piece.device.type == "cpu":
            read_into(path, offset, piece)
            return
        # Per thread, at its first read: pinned memory is expensive to allocate.
        if not hasattr(self._local, "staging"):
            self._local.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._local.staging = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
        staging = self._local.staging[: piece.nbytes]
        read_into(path, offset, staging)
        with torch.cuda.stream(self._local.stream):
            piece.copy_(staging, non_blocking=True)
        # The thread's one buffer is written again by its next piece.
        self._local.stream.synchronize()


@dataclass(frozen=True, slots=True)
class Load:
    """Tensors that were read, and the memory they are views of."""

    buffer: torch.Tensor
    tensors: dict[str, torch.Tensor]


def read_into(path: Path, offset: int, buffer: torch.Tensor) -> None:
    """Fills a byte tensor of the host from a file; raises CheckpointError where the file ends before."""
    view, done = buffer.numpy().data, 0
    handle = os.open(path, os.O_RDONLY)
    try:
        while done < len(view):
            # One call may return less than asked for.
            count = os.preadv(handle, [view[done:]], offset + done)
            if count == 0:
                raise CheckpointError(f"{path}: the file ends too early; get it again")
            done += count
    finally:
        os.close(handle)
