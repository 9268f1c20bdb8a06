"""What the tensors of a rank file are made of; pure."""

import math
from dataclasses import dataclass

from pipeline.weights.tensors import item_bytes

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Slice:
    """A box of a source tensor: one index range per dimension."""

    source: str
    dtype: str
    shape: tuple[int, ...]
    """Shape of the whole source tensor."""
    ranges: tuple[Range, ...]
    reason: str = ""
    """Why more than one local tensor may hold these elements; empty if only one may."""

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape of the box."""
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def contiguous(self) -> bool:
        """The box is one run of bytes: all dimensions but the first are whole."""
        return self.extent[1:] == self.shape[1:]


@dataclass(frozen=True, slots=True)
class Fill:
    """Elements that no source tensor holds."""

    value: int
    """0 or 1."""
    extent: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Largest:
    """One float32 value: the largest of some float32 scalars, and no less than a floor."""

    sources: tuple[Slice, ...]
    floor: float

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape of the value."""
        return (1,)


@dataclass(frozen=True, slots=True)
class PlusOne:
    """One plus every element of a source tensor, added in float32 and rounded once to the tensor's dtype."""

    source: Slice

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.source.extent


Piece = Slice | Fill | Largest | PlusOne


@dataclass(frozen=True, slots=True)
class LocalTensor:
    """One tensor of a rank file: parts, one after another; a stack of experts is flat, [E * rows, ...].

    A part of a narrower float type is widened.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Piece, ...]
    equal: tuple[Slice, ...] = ()
    """Source tensors that equal the parts and so are not written: as many for each part, in order."""

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * item_bytes(self.dtype)
