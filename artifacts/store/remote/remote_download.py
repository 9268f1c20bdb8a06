"""Fetches files from a remote store into a directory, every part verified; what is right there is kept."""

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
"""How often a part is asked for whose body ends early or has other bytes than its digest says."""

Moved = Callable[[int], None]
"""Told bytes that are here, verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file that are one object in the store."""

    path: str
    sha256: str
    offset: int
    length: int


def fetch(
    objects: Objects, part_bytes: int, files: Mapping[str, FileRecord], into: Path, moved: Moved
) -> None:
    """Make the files below `into` what their records say, fetching only parts that are not right there.

    Bytes that stay wrong after several attempts are an ArtifactCorrupt, missing ones too.
    """
    for name, file in files.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _size(target, file.size)
    short = {name: file for name, file in files.items() if file.size <= part_bytes}
    calls = (partial(_settle, objects, into / name, _only(file)) for name, file in short.items())
    for length in in_order(calls):
        moved(length)
    for name, file in files.items():
        if name not in short:
            _fetch_long(objects, into / name, file, moved)


def differing(
    objects: Objects, part_bytes: int, files: Mapping[str, FileRecord], moved: Moved
) -> Iterator[tuple[str, str]]:
    """Name and what is wrong of each file that is damaged in the store, by reading all of them."""
    for name, file in files.items():
        try:
            parts = [_only(file)] if file.size <= part_bytes else parts_of(objects, file)
            whole = hashlib.sha256()
            for data in in_order(partial(_read, objects, part) for part in parts):
                whole.update(data)
                moved(len(data))
            if whole.hexdigest() != file.sha256:
                yield name, f"its parts make sha256 {whole.hexdigest()}; the manifest says {file.sha256}"
        except ArtifactCorrupt as exc:
            yield name, str(exc)


def parts_of(objects: Objects, file: FileRecord) -> list[Part]:
    """The parts of a long file by its index; an ArtifactCorrupt where that is missing or wrong."""
    path = remote_layout.index_path(file.sha256)
    where = f"{objects.place.url}/{path}"
    text = objects.read(path)
    if text is None:
        raise ArtifactCorrupt(f"{where} is missing; repair the store from a copy, or build the recipe again")
    index = remote_layout.read_index(text.decode(errors="replace"), where)
    if index.size != file.size:
        raise ArtifactCorrupt(f"{where} is of {index.size:,} bytes; the manifest says {file.size:,}")
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


def _only(file: FileRecord) -> Part:
    return Part(path=remote_layout.blob_path(file.sha256), sha256=file.sha256, offset=0, length=file.size)


def _size(target: Path, size: int) -> None:
    """Gives the file its length, without writing bytes; what it has of them stays."""
    opened = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.ftruncate(opened, size)
    finally:
        os.close(opened)


def _fetch_long(objects: Objects, target: Path, file: FileRecord, moved: Moved) -> None:
    """Fetches parts several at a time, and hashes the whole behind them, from memory as a rule."""
    whole = hashlib.sha256()
    with target.open("rb") as behind:
        for length in in_order(partial(_settle, objects, target, part) for part in parts_of(objects, file)):
            _hash(behind, length, whole)
            moved(length)
    if whole.hexdigest() != file.sha256:
        raise ArtifactCorrupt(
            f"{objects.place.url}/{remote_layout.index_path(file.sha256)}: its parts make sha256"
            f" {whole.hexdigest()}; repair the store from a copy, or build the recipe again"
        )


def _hash(opened: BufferedReader, length: int, whole: "hashlib._Hash") -> None:
    left = length
    while left:
        chunk = opened.read(min(left, CHUNK_BYTES))
        whole.update(chunk)
        left -= len(chunk)


def _settle(objects: Objects, target: Path, part: Part) -> int:
    """Makes the part's bytes in the file right."""
    opened = os.open(target, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if not _is_right(opened, part):
            _receive(objects, opened, part)
    finally:
        os.close(opened)
    return part.length


def _is_right(opened: int, part: Part) -> bool:
    """Whether the file has the part's bytes already; a hole was never written and is not read."""
    if part.length and not _has_data(opened, part):
        return False
    seen, at, end = hashlib.sha256(), part.offset, part.offset + part.length
    while at < end:
        chunk = os.pread(opened, min(CHUNK_BYTES, end - at), at)
        if not chunk:
            return False
        seen.update(chunk)
        at += len(chunk)
    return seen.hexdigest() == part.sha256


def _has_data(opened: int, part: Part) -> bool:
    try:
        return os.lseek(opened, part.offset, os.SEEK_DATA) < part.offset + part.length
    except OSError:  # a hole up to the end of the file, or a file system that does not tell
        return os.fstat(opened).st_blocks > 0


def _receive(objects: Objects, opened: int, part: Part) -> None:
    _transfer(objects, part, lambda data, at: _write(opened, data, part.offset + at))


def _read(objects: Objects, part: Part) -> bytes:
    """The part's bytes, verified."""
    held = bytearray(part.length)

    def keep(data: bytes, at: int) -> None:
        held[at : at + len(data)] = data

    _transfer(objects, part, keep)
    return bytes(held)


def _write(opened: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(opened, rest, at)
        rest, at = rest[written:], at + written


def _transfer(objects: Objects, part: Part, sink: Callable[[bytes, int], None]) -> None:
    """Hands the part's bytes to `sink`, again from the start until they are what its digest says."""
    where = f"{objects.place.url}/{part.path}"
    said = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(objects.patience.backoff_s * 2**attempt)
        try:
            said = _once(objects, part, sink)
        except Dropped as exc:
            said, lost = str(exc), True
        except FileNotFoundError:
            raise ArtifactCorrupt(
                f"{where} is missing; repair the store from a copy, or build the recipe again"
            ) from None
        else:
            lost = False
        if not said:
            return
    if lost:
        raise StoreUnusable(f"{where} could not be read to its end ({said}); run again, what is here is kept")
    raise ArtifactCorrupt(f"{where} {said}; repair the store from a copy, or build the recipe again")


def _once(objects: Objects, part: Part, sink: Callable[[bytes, int], None]) -> str:
    """Hands over the bytes of one answer; returns what is wrong with them, or nothing."""
    seen, at = hashlib.sha256(), 0
    for chunk in objects.stream(part.path):
        if at + len(chunk) > part.length:
            return f"has more than its {part.length:,} bytes"
        sink(chunk, at)
        seen.update(chunk)
        at += len(chunk)
    if at != part.length:
        return f"has {at:,} bytes, not {part.length:,}"
    return "" if seen.hexdigest() == part.sha256 else f"has sha256 {seen.hexdigest()}"
