"""Fetches files from a remote store into a directory; verifies every part and keeps intact ones."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, StoreUnusable
from artifacts.manifest import FileRecord
from artifacts.store.remote import remote_layout
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.remote_objects import CHUNK_BYTES, Dropped, Objects

ATTEMPTS = 5
"""Requests for a part whose body ends early or does not match its digest."""

OnBytes = Callable[[int], None]
"""Receives the number of bytes that were verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file that are one object in the store."""

    path: str
    sha256: str
    offset: int
    length: int


def fetch(
    objects: Objects, part_bytes: int, files: Mapping[str, FileRecord], directory: Path, on_bytes: OnBytes
) -> None:
    """Make the files below `directory` match their records; fetches only missing and damaged parts.

    ArtifactCorrupt for objects that are missing, or still damaged after several attempts.
    """
    for name, file in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Full length first, so that parts can be written at their offsets in any order.
        _size(target, file.size)
    # Short files share the lanes; a long file fills all of them with its own parts.
    short = {name: file for name, file in files.items() if file.size <= part_bytes}
    calls = (partial(_settle, objects, directory / name, _single_part(file)) for name, file in short.items())
    for length in in_order(calls):
        on_bytes(length)
    for name, file in files.items():
        if name not in short:
            _fetch_long(objects, directory / name, file, on_bytes)


def differing(
    objects: Objects, part_bytes: int, files: Mapping[str, FileRecord], on_bytes: OnBytes
) -> Iterator[tuple[str, str]]:
    """Name and problem of each file that is damaged in the store; reads all of them."""
    for name, file in files.items():
        try:
            parts = [_single_part(file)] if file.size <= part_bytes else parts_of(objects, file)
            hasher = hashlib.sha256()
            for data in in_order(partial(_read, objects, part) for part in parts):
                hasher.update(data)
                on_bytes(len(data))
            if hasher.hexdigest() != file.sha256:
                yield name, f"its parts make sha256 {hasher.hexdigest()}; the manifest says {file.sha256}"
        except ArtifactCorrupt as exc:
            yield name, str(exc)


def parts_of(objects: Objects, file: FileRecord) -> list[Part]:
    """The parts of a long file from its index; ArtifactCorrupt where the index is missing or wrong."""
    path = remote_layout.index_path(file.sha256)
    place = f"{objects.place.url}/{path}"
    text = objects.read(path)
    if text is None:
        raise ArtifactCorrupt(f"{place} is missing; repair the store from a copy, or build the recipe again")
    index = remote_layout.read_index(text.decode(errors="replace"), place)
    if index.size != file.size:
        raise ArtifactCorrupt(f"{place} is of {index.size:,} bytes; the manifest says {file.size:,}")
    spans = remote_layout.spans(index.size, index.part_bytes)
    return [
        Part(
            path=remote_layout.part_path(file.sha256, number, sha256),
            sha256=sha256,
            offset=offset,
            length=length,
        )
        for number, (sha256, (offset, length)) in enumerate(zip(index.parts, spans, strict=True))
    ]


def _single_part(file: FileRecord) -> Part:
    return Part(path=remote_layout.blob_path(file.sha256), sha256=file.sha256, offset=0, length=file.size)


def _size(target: Path, size: int) -> None:
    """Set the file's length without writing bytes; existing bytes stay."""
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.ftruncate(handle, size)
    finally:
        os.close(handle)


def _fetch_long(objects: Objects, target: Path, file: FileRecord, on_bytes: OnBytes) -> None:
    """Fetch several parts at a time, and hash the whole file behind them, usually from the page cache."""
    hasher = hashlib.sha256()
    with target.open("rb") as reader:
        for length in in_order(partial(_settle, objects, target, part) for part in parts_of(objects, file)):
            _hash(reader, length, hasher)
            on_bytes(length)
    if hasher.hexdigest() != file.sha256:
        raise ArtifactCorrupt(
            f"{objects.place.url}/{remote_layout.index_path(file.sha256)}: its parts make sha256"
            f" {hasher.hexdigest()}; repair the store from a copy, or build the recipe again"
        )


def _hash(file: BufferedReader, length: int, hasher: "hashlib._Hash") -> None:
    remaining = length
    while remaining:
        chunk = file.read(min(remaining, CHUNK_BYTES))
        hasher.update(chunk)
        remaining -= len(chunk)


def _settle(objects: Objects, target: Path, part: Part) -> int:
    """Fetch the part's bytes into the file unless they are intact."""
    handle = os.open(target, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if not _is_intact(handle, part):
            _receive(objects, handle, part)
    finally:
        os.close(handle)
    return part.length


def _is_intact(handle: int, part: Part) -> bool:
    """Whether the file has the part's bytes already; a hole was never written, so it is not read."""
    if part.length and not _has_data(handle, part):
        return False
    hasher, position, end = hashlib.sha256(), part.offset, part.offset + part.length
    while position < end:
        chunk = os.pread(handle, min(CHUNK_BYTES, end - position), position)
        if not chunk:
            return False
        hasher.update(chunk)
        position += len(chunk)
    return hasher.hexdigest() == part.sha256


def _has_data(handle: int, part: Part) -> bool:
    try:
        # `ftruncate` made holes where nothing was fetched yet; reading them would hash gigabytes of zeros.
        return os.lseek(handle, part.offset, os.SEEK_DATA) < part.offset + part.length
    except OSError:  # a hole up to the end of the file, or a file system without SEEK_DATA
        return os.fstat(handle).st_blocks > 0


def _receive(objects: Objects, handle: int, part: Part) -> None:
    _transfer(objects, part, lambda data, position: _write(handle, data, part.offset + position))


def _read(objects: Objects, part: Part) -> bytes:
    """The part's bytes, verified."""
    buffer = bytearray(part.length)

    def keep(data: bytes, position: int) -> None:
        buffer[position : position + len(data)] = data

    _transfer(objects, part, keep)
    return bytes(buffer)


def _write(handle: int, data: bytes, position: int) -> None:
    remaining = memoryview(data)
    while remaining:
        written = os.pwrite(handle, remaining, position)
        remaining, position = remaining[written:], position + written


def _transfer(objects: Objects, part: Part, sink: Callable[[bytes, int], None]) -> None:
    """Pass the part's bytes to `sink`; repeats from the start until they match the digest."""
    place = f"{objects.place.url}/{part.path}"
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(objects.patience.backoff_s * 2**attempt)
        try:
            problem = _transfer_once(objects, part, sink)
        except Dropped as exc:
            problem, cut_short = str(exc), True
        except FileNotFoundError:
            raise ArtifactCorrupt(
                f"{place} is missing; repair the store from a copy, or build the recipe again"
            ) from None
        else:
            cut_short = False
        if not problem:
            return
    if cut_short:
        raise StoreUnusable(
            f"{place} could not be read to its end ({problem}); run again, what is here is kept"
        )
    raise ArtifactCorrupt(f"{place} {problem}; repair the store from a copy, or build the recipe again")


def _transfer_once(objects: Objects, part: Part, sink: Callable[[bytes, int], None]) -> str:
    """Pass the bytes of one response to `sink`; return their problem, empty if they match."""
    hasher, position = hashlib.sha256(), 0
    for chunk in objects.stream(part.path):
        # Before the write: surplus bytes would overwrite the next part of the file.
        if position + len(chunk) > part.length:
            return f"has more than its {part.length:,} bytes"
        sink(chunk, position)
        hasher.update(chunk)
        position += len(chunk)
    if position != part.length:
        return f"has {position:,} bytes, not {part.length:,}"
    return "" if hasher.hexdigest() == part.sha256 else f"has sha256 {hasher.hexdigest()}"
