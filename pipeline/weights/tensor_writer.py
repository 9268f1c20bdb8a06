"""Writing safetensors files piece by piece, in bounded memory."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import BuildFailed, SourceError
from pipeline.models.model_json import open_regular
from pipeline.weights.tensors import Array, item_bytes

ALIGNMENT = 64
"""Bytes; data starts at a multiple, so that loaders may use the mapped memory in place."""
PIECE_BYTES = 8 << 20
"""Bytes moved at a time; 8 MiB keeps memory small and each system call worth its price."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of a file, copied without passing through this process."""

    file: Path
    start: int
    end: int


Chunk = Array | bytes | memoryview | Span


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to write: what the header says, and the chunks that are its bytes, in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Chunk]]
    """Called once, when the tensor's turn comes; each chunk is let go before the next is asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * item_bytes(self.dtype)


def layout(plan: Iterable[TensorPlan]) -> list[TensorPlan]:
    """Orders tensors so that all are aligned: whole multiples of ALIGNMENT first, then by element size."""
    # Multiples of 64 bytes keep the next tensor aligned. The rest go last, large elements first, so
    # that each starts at a multiple of its own element size.
    return sorted(
        plan, key=lambda t: (t.nbytes % ALIGNMENT != 0, -item_bytes(t.dtype) if t.nbytes % ALIGNMENT else 0)
    )


def header_bytes(ordered: Sequence[TensorPlan], metadata: Mapping[str, str]) -> bytes:
    """Builds length and header of a safetensors file, padded so that the data is aligned."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in ordered:
        if tensor.name in fields:
            raise ValueError(f"tensor {tensor.name!r} is planned twice; names must be unique")
        offsets = [position, position + tensor.nbytes]
        fields[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        position += tensor.nbytes
    text = json.dumps(fields, separators=(",", ":")).encode()
    # The format allows spaces after the JSON; the 8 length bytes count for the alignment too.
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_safetensors(
    path: Path,
    plan: Iterable[TensorPlan],
    *,
    metadata: Mapping[str, str] | None = None,
    wrote: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes a new safetensors file tensor by tensor; memory is bounded by the largest chunk.

    `wrote` is told the bytes of every chunk. Metadata defaults to `format: pt`, which transformers asks for.
    """
    ordered = layout(plan)
    # "x": a file that exists is never overwritten. Unbuffered, because sendfile bypasses Python's buffer.
    with path.open("xb", buffering=0) as out:
        _write_all(out, memoryview(header_bytes(ordered, {"format": "pt"} if metadata is None else metadata)))
        for tensor in ordered:
            written = 0
            for nbytes in _write_chunks(out, tensor.chunks()):
                written += nbytes
                wrote(nbytes)
            if written != tensor.nbytes:
                raise BuildFailed(
                    f"{path}: tensor {tensor.name!r} got {written} bytes, its shape {list(tensor.shape)} "
                    f"needs {tensor.nbytes}; the plan is wrong"
                )


def _write_chunks(out: BinaryIO, chunks: Iterable[Chunk]) -> Iterator[int]:
    for chunk in chunks:
        if isinstance(chunk, Span):
            yield from _copy_span(out, chunk)
        else:
            data = _flatten(chunk) if isinstance(chunk, np.ndarray) else memoryview(chunk).cast("B")
            _write_all(out, data)
            yield data.nbytes


def _flatten(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_all(out: BinaryIO, data: memoryview) -> None:
    view = data
    while view:
        # A raw write may be short; without the loop the rest would be lost silently.
        view = view[out.write(view) :]


def _copy_span(out: BinaryIO, span: Span) -> Iterator[int]:
    """Copies in the kernel, piece by piece (files of one host; sendfile crosses file systems)."""
    position = span.start
    with open_regular(span.file) as source:
        while position < span.end:
            count = os.sendfile(
                out.fileno(), source.fileno(), position, min(PIECE_BYTES, span.end - position)
            )
            # sendfile returns 0 at the end of the source: the file became shorter since its check.
            if count == 0:
                raise SourceError(
                    f"{span.file}: ended at byte {position}, {span.end} expected; it was changed"
                )
            position += count
            yield count
