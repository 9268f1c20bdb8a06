"""Paths in a remote store, and the division of long files into parts: pure."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationError, model_validator

from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import Frozen, Sha256, seal, unseal

PART_BYTES = 16 << 20
"""Longer files are stored in parts of this size, the memory that a request takes."""

STORE = "store.json"
MANIFESTS = "manifests"
QUARANTINE = "quarantine"


class StoreRecord(Frozen):
    """The record of a remote store about itself; written by its first writer."""

    layout: Literal[1]
    id: str
    """Random, so that a store is recognised under any URL."""
    part_bytes: PositiveInt = PART_BYTES

    def to_text(self) -> str:
        """The record as it is stored."""
        return seal(self.model_dump(mode="json"))


class PartIndex(Frozen):
    """The index of a long file; written after all of its parts."""

    version: Literal[1]
    size: NonNegativeInt
    """Bytes of the file."""
    part_bytes: PositiveInt
    parts: tuple[Sha256, ...]
    """Digests in order; every part has `part_bytes`, the last one the rest."""

    @model_validator(mode="after")
    def parts_make_the_size(self) -> "PartIndex":
        """Checks that there are as many parts as the size needs."""
        expected = -(-self.size // self.part_bytes)
        if len(self.parts) != expected:
            raise ValueError(f"{len(self.parts)} parts; {self.size:,} bytes have {expected}")
        return self

    def to_text(self) -> str:
        """The index as it is stored."""
        return seal(self.model_dump(mode="json"))


def read_index(text: str, place: str) -> PartIndex:
    """The index in sealed text; otherwise an ArtifactCorrupt that names `place`."""
    try:
        return PartIndex.model_validate(unseal(text, place))
    except ValidationError as exc:
        raise ArtifactCorrupt(
            f"{place}: {exc.errors()[0]['msg']}; it was not written by this version"
        ) from None


def read_store(text: str, place: str) -> StoreRecord:
    """The store's record in sealed text; otherwise an ArtifactCorrupt that names `place`."""
    try:
        return StoreRecord.model_validate(unseal(text, place))
    except ValidationError as exc:
        raise ArtifactCorrupt(f"{place}: {exc.errors()[0]['msg']}; this version reads layout 1") from None


def spans(size: int, part_bytes: int) -> list[tuple[int, int]]:
    """Offset and length of every part of a file: (size, part_bytes) -> [(offset, length)]."""
    return [(offset, min(part_bytes, size - offset)) for offset in range(0, size, part_bytes)]


def manifest_path(name: str) -> str:
    """Path of the manifest of a key's first content, or, by its address, of a further one."""
    return f"{MANIFESTS}/{name[:2]}/{name}.json"


def name_of(path: str) -> str:
    """The key or address in a manifest's path: the inverse of `manifest_path`."""
    return path.rpartition("/")[2].removesuffix(".json")


def blob_path(sha256: str) -> str:
    """Path of the bytes of a file with one part."""
    return f"blobs/{sha256[:2]}/{sha256}"


def index_path(sha256: str) -> str:
    """Path of the index of a longer file."""
    return f"{blob_path(sha256)}.json"


def parts_prefix(sha256: str) -> str:
    """Folder of the parts of a longer file."""
    return f"{blob_path(sha256)}.parts"


def part_path(sha256: str, index: int, part: str) -> str:
    """Path of one part of a longer file; it contains the digest, so that equal paths have equal bytes."""
    return f"{parts_prefix(sha256)}/{index:05d}.{part}"
