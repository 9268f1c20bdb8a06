"""Where things are in a remote store, and how a long file is cut: pure."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationError, model_validator

from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import Frozen, Sha256, seal, unseal

PART_BYTES = 16 << 20
"""Longer files are stored in parts of so many bytes: what is held in memory per request."""

STORE = "store.json"
MANIFESTS = "manifests"
QUARANTINE = "quarantine"


class StoreRecord(Frozen):
    """What a remote store says of itself; made by its first writer."""

    layout: Literal[1]
    id: str
    """Random, so that a store is recognised under any URL."""
    part_bytes: PositiveInt = PART_BYTES

    def to_text(self) -> str:
        """The record as it is stored."""
        return seal(self.model_dump(mode="json"))


class PartIndex(Frozen):
    """What a long file consists of; written when all of its parts are there."""

    version: Literal[1]
    size: NonNegativeInt
    """Bytes of the file."""
    part_bytes: PositiveInt
    parts: tuple[Sha256, ...]
    """Digests in order; every part has `part_bytes`, the last what is left."""

    @model_validator(mode="after")
    def parts_make_the_size(self) -> "PartIndex":
        """Checks that there are as many parts as the size needs."""
        needed = -(-self.size // self.part_bytes)
        if len(self.parts) != needed:
            raise ValueError(f"{len(self.parts)} parts; {self.size:,} bytes have {needed}")
        return self

    def to_text(self) -> str:
        """The index as it is stored."""
        return seal(self.model_dump(mode="json"))


def read_index(text: str, where: str) -> PartIndex:
    """The index in sealed text; anything else is an ArtifactCorrupt naming `where` it was."""
    try:
        return PartIndex.model_validate(unseal(text, where))
    except ValidationError as exc:
        raise ArtifactCorrupt(
            f"{where}: {exc.errors()[0]['msg']}; it was not written by this version"
        ) from None


def read_store(text: str, where: str) -> StoreRecord:
    """The store's record in sealed text; anything else is an ArtifactCorrupt naming `where` it was."""
    try:
        return StoreRecord.model_validate(unseal(text, where))
    except ValidationError as exc:
        raise ArtifactCorrupt(f"{where}: {exc.errors()[0]['msg']}; this version reads layout 1") from None


def spans(size: int, part_bytes: int) -> list[tuple[int, int]]:
    """Offset and length of every part of a file: (size, part_bytes) -> [(offset, length)]."""
    return [(offset, min(part_bytes, size - offset)) for offset in range(0, size, part_bytes)]


def manifest_path(name: str) -> str:
    """Where the manifest of a key's first content is, or, by its address, that of a further one."""
    return f"{MANIFESTS}/{name[:2]}/{name}.json"


def name_of(path: str) -> str:
    """What `manifest_path` was given."""
    return path.rpartition("/")[2].removesuffix(".json")


def blob_path(sha256: str) -> str:
    """Where the bytes of a file of one part are."""
    return f"blobs/{sha256[:2]}/{sha256}"


def index_path(sha256: str) -> str:
    """Where the index of a longer file is."""
    return f"{blob_path(sha256)}.json"


def parts_prefix(sha256: str) -> str:
    """Where the parts of a longer file are."""
    return f"{blob_path(sha256)}.parts"


def part_path(sha256: str, index: int, part: str) -> str:
    """Where one part of a longer file is; its name has its digest, so that nobody takes another's for it."""
    return f"{parts_prefix(sha256)}/{index:05d}.{part}"
