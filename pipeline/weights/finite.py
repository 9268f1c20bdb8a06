"""Finds NaN and infinity in the weights of a checkpoint, reading a little at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import SourceError
from pipeline.process.meter import Meter, Progress
from pipeline.weights.tensors import Checkpoint, TensorEntry

MASKS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
"""Bits that are all ones in a NaN or an infinity and in no other number; e4m3 has no infinity and one NaN."""

CHUNK_BYTES = 1 << 20
"""Read at once: small enough to stay in the processor's cache between the read and the test."""


def check_finite(checkpoint: Checkpoint, progress: Progress) -> None:
    """Reads every floating tensor; the first that holds NaN or infinity is a SourceError that names it."""
    entries = [entry for entry in checkpoint.entries.values() if entry.dtype in MASKS]
    # In the order on disk: sequential reads suit network and spinning disks.
    entries.sort(key=lambda entry: (entry.file, entry.start))
    meter = Meter(progress, sum(entry.nbytes for entry in entries), "bytes checked")
    for entry in entries:
        _check_tensor(entry, meter.add)


def _check_tensor(entry: TensorEntry, tick: Callable[[int], None]) -> None:
    unsigned, mask = MASKS[entry.dtype]
    buffer = bytearray(CHUNK_BYTES)
    # One reused buffer each for the bytes and the masked bits: a checkpoint is hundreds of gigabytes, in
    # chunks of 1 MiB, and each would allocate twice.
    masked: npt.NDArray[Any] = np.empty(CHUNK_BYTES // np.dtype(unsigned).itemsize, unsigned)
    with entry.file.open("rb", buffering=0) as file:
        file.seek(entry.start)
        read = 0
        while read < entry.nbytes:
            view = memoryview(buffer)[: min(CHUNK_BYTES, entry.nbytes - read)]
            _fill_buffer(entry, file.readinto, view)
            bits = np.frombuffer(view, unsigned)
            ones = np.bitwise_and(bits, unsigned(mask), out=masked[: bits.size])
            if ones.max() == mask:
                first = read // bits.itemsize + int(np.argmax(ones == mask))
                raise SourceError(
                    f"{entry.file}: tensor {entry.name!r} of shape {list(entry.shape)} is NaN or infinite at "
                    f"flat position {first}; every weight must be a finite number: fetch or make it again"
                )
            read += len(view)
            tick(len(view))


def _fill_buffer(entry: TensorEntry, readinto: Callable[[memoryview], int | None], view: memoryview) -> None:
    filled = 0
    while filled < len(view):
        count = readinto(view[filled:])
        if not count:
            raise SourceError(f"{entry.file}: ends inside tensor {entry.name!r}; fetch the file again")
        filled += count
