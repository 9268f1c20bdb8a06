"""Casts weights to the one type that config.json says, as transformers does when it loads them."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import SourceError
from pipeline.process.meter import Meter, Progress
from pipeline.weights.tensor_writer import PIECE_BYTES, Chunk, Span, TensorPlan, write_safetensors
from pipeline.weights.tensors import NONFINITE, NUMPY_TYPES, Array, Checkpoint, TensorEntry


def cast(checkpoint: Checkpoint, names: Collection[str], dtype: str, progress: Progress) -> None:
    """Writes the files that hold the named tensors anew, with those in `dtype`, a safetensors name.

    Every other tensor keeps its bytes. A SourceError names the first tensor with a value beyond the type.
    """
    files: dict[Path, list[TensorEntry]] = defaultdict(list)
    for entry in checkpoint.entries.values():
        files[entry.file].append(entry)
    to_cast = {
        file: entries for file, entries in files.items() if any(entry.name in names for entry in entries)
    }
    total = sum(entry.nbytes for entries in to_cast.values() for entry in entries)
    written = Meter(progress, total, "bytes cast")
    for file, entries in to_cast.items():
        # A new file, then a rename: the old bytes stay intact on a crash, and under a hard link of the cache.
        draft = file.with_suffix(".cast")
        plans = [
            _plan_tensor(checkpoint, entry, dtype if entry.name in names else entry.dtype)
            for entry in entries
        ]
        write_safetensors(draft, plans, wrote=written.add)
        draft.replace(file)  # a file of a download's cache keeps its bytes under its other name
    written.add(total - written.done)


def _plan_tensor(checkpoint: Checkpoint, entry: TensorEntry, dtype: str) -> TensorPlan:
    def chunks() -> Iterator[Chunk]:
        if entry.dtype == dtype:
            yield Span(entry.file, entry.start, entry.end)
        else:
            yield from _cast_pieces(checkpoint, entry, dtype)

    return TensorPlan(entry.name, dtype, entry.shape, chunks)


def _cast_pieces(checkpoint: Checkpoint, entry: TensorEntry, dtype: str) -> Iterator[Array]:
    stored = checkpoint.raw(entry.name)
    for start in range(0, stored.size, PIECE_BYTES):
        stop = min(start + PIECE_BYTES, stored.size)
        values = narrowed(widened(stored[start:stop], entry.dtype), dtype)
        # check_finite ran before, so a non-finite value here is an overflow of the cast.
        unsigned, mask = NONFINITE[dtype]
        if bool(np.any((values.view(unsigned) & mask) == mask)):
            raise SourceError(
                f"{entry.file}: tensor {entry.name!r} of type {entry.dtype} holds values that are beyond the "
                f"range of {dtype}, the type in config.json; correct dtype there"
            )
        yield values
        checkpoint.drop_pages(entry, start, stop)


def widened(stored: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    """Returns the values of a floating type in float32, to which PyTorch rounds float64 first too."""
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32: widening is a shift, exact for every value.
        return (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # infinity is found, and told, by whoever asked
        return stored.view(NUMPY_TYPES[dtype]).astype(np.float32)


def narrowed(values: npt.NDArray[np.float32], dtype: str) -> Array:
    """Rounds finite float32 values to a type, to nearest and ties to even; bfloat16 comes as uint16."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(NUMPY_TYPES[dtype])
    # Round half to even: add 0x7FFF, plus one when the bit that stays is odd, then cut the lower half.
    # NaN would overflow into the sign; callers pass finite values only.
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
