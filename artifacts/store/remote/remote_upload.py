"""Sends files to a remote store: only missing ones, long files in parts, and their index last."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, StoreUnusable
from artifacts.manifest import FileRecord
from artifacts.store.remote import remote_layout
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.remote_objects import Objects

OnBytes = Callable[[int], None]
"""Receives the number of bytes that were sent or were there already."""

LOOKS = 5
"""Attempts to find all parts in the store's listing."""

Sent = tuple[str, int]
"""Digest and bytes of a part."""


def push_files(
    objects: Objects, part_bytes: int, root: Path, files: Mapping[str, FileRecord], on_bytes: OnBytes
) -> None:
    """Send the files below `root` that the store lacks; ArtifactCorrupt for a file that differs from its
    record."""
    short = {name: file for name, file in files.items() if file.size <= part_bytes}
    for size in in_order(partial(_send_short, objects, root / name, file) for name, file in short.items()):
        on_bytes(size)
    for name, file in files.items():
        if name not in short:
            _send_long(objects, part_bytes, root / name, file, on_bytes)


def _send_short(objects: Objects, path: Path, file: FileRecord) -> int:
    target = remote_layout.blob_path(file.sha256)
    # The path names the digest, so an object of the right size is the content, or a damaged one that `verify`
    # finds.
    if objects.size(target) != file.size:
        data = path.read_bytes()
        _require(path, file, hashlib.sha256(data).hexdigest())
        objects.write(target, data)
    return file.size


def _send_long(objects: Objects, part_bytes: int, path: Path, file: FileRecord, on_bytes: OnBytes) -> None:
    """Send a file's missing parts, and then its index, which commits the file."""
    target = remote_layout.index_path(file.sha256)
    if objects.size(target) is not None:
        on_bytes(file.size)
        return
    sizes = objects.listing(remote_layout.parts_prefix(file.sha256))
    hasher, parts = hashlib.sha256(), []
    for part, size in in_order(_parts(objects, part_bytes, path, file, sizes, hasher)):
        parts.append(part)
        on_bytes(size)
    _require(path, file, hasher.hexdigest())
    index = remote_layout.PartIndex(version=1, size=file.size, part_bytes=part_bytes, parts=tuple(parts))
    _require_parts(objects, file, index)
    # Last: an index in the store means that all of its parts are there.
    objects.write(target, index.to_text().encode())


def _parts(
    objects: Objects,
    part_bytes: int,
    path: Path,
    file: FileRecord,
    sizes: dict[str, int],
    hasher: "hashlib._Hash",
) -> Iterator[Callable[[], Sent]]:
    """One call per part that sends it unless `sizes` has it; every byte also goes through `hasher`."""
    with path.open("rb") as reader:
        for index, (_, length) in enumerate(remote_layout.spans(file.size, part_bytes)):
            # Read one after another, since one hash runs over the whole file; sending is what runs in
            # parallel.
            data = reader.read(length)
            hasher.update(data)
            yield partial(_send_part, objects, file.sha256, index, data, sizes)


def _send_part(objects: Objects, sha256: str, index: int, data: bytes, sizes: dict[str, int]) -> Sent:
    part = hashlib.sha256(data).hexdigest()
    target = remote_layout.part_path(sha256, index, part)
    if sizes.get(target) != len(data):
        objects.write(target, data)
    return part, len(data)


def _require_parts(objects: Objects, file: FileRecord, index: remote_layout.PartIndex) -> None:
    """Raise a StoreUnusable unless all parts are in the store in full.

    Retries after a pause: a file server may omit a part that another push is replacing by the same bytes.
    """
    spans = remote_layout.spans(index.size, index.part_bytes)
    length_of = {
        remote_layout.part_path(file.sha256, number, part): length
        for number, (part, (_, length)) in enumerate(zip(index.parts, spans, strict=True))
    }
    for attempt in range(LOOKS):
        sizes = objects.listing(remote_layout.parts_prefix(file.sha256))
        incomplete = [path for path, length in length_of.items() if sizes.get(path) != length]
        if not incomplete:
            return
        time.sleep(objects.patience.backoff_s * 2**attempt)
    path = incomplete[0]
    raise StoreUnusable(
        f"{objects.place.url}: {path} has {sizes.get(path, 0):,} of {length_of[path]:,} bytes after it was "
        "written; run again, parts in the store are kept"
    )


def _require(path: Path, file: FileRecord, sha256: str) -> None:
    if sha256 != file.sha256:
        raise ArtifactCorrupt(
            f"{path} has sha256 {sha256}, not {file.sha256}; it was not pushed, build its recipe again"
        )
