"""Sends files to a remote store: only what is not there yet, a long file in parts and its index last."""

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

Moved = Callable[[int], None]
"""Told bytes that have arrived, or were there."""

LOOKS = 5
"""How often it is looked whether all parts have arrived."""

Sent = tuple[str, int]
"""Digest and bytes of a part."""


def push_files(
    objects: Objects, part_bytes: int, root: Path, files: Mapping[str, FileRecord], moved: Moved
) -> None:
    """Send what is missing of the files below `root`; one that is not what its record says is an
    ArtifactCorrupt."""
    short = {name: file for name, file in files.items() if file.size <= part_bytes}
    for size in in_order(partial(_send_short, objects, root / name, file) for name, file in short.items()):
        moved(size)
    for name, file in files.items():
        if name not in short:
            _send_long(objects, part_bytes, root / name, file, moved)


def _send_short(objects: Objects, path: Path, file: FileRecord) -> int:
    target = remote_layout.blob_path(file.sha256)
    if objects.size(target) != file.size:
        data = path.read_bytes()
        _require(path, file, hashlib.sha256(data).hexdigest())
        objects.write(target, data)
    return file.size


def _send_long(objects: Objects, part_bytes: int, path: Path, file: FileRecord, moved: Moved) -> None:
    """Sends a file's parts, and when all of them are there its index."""
    target = remote_layout.index_path(file.sha256)
    if objects.size(target) is not None:
        moved(file.size)
        return
    there = objects.listing(remote_layout.parts_prefix(file.sha256))
    whole, parts = hashlib.sha256(), []
    for part, size in in_order(_parts(objects, part_bytes, path, file, there, whole)):
        parts.append(part)
        moved(size)
    _require(path, file, whole.hexdigest())
    index = remote_layout.PartIndex(version=1, size=file.size, part_bytes=part_bytes, parts=tuple(parts))
    _require_parts(objects, file, index)
    objects.write(target, index.to_text().encode())


def _parts(
    objects: Objects,
    part_bytes: int,
    path: Path,
    file: FileRecord,
    there: dict[str, int],
    whole: "hashlib._Hash",
) -> Iterator[Callable[[], Sent]]:
    """One call per part, which sends it unless it is there; `whole` sees every byte on the way."""
    with path.open("rb") as opened:
        for index, (_, length) in enumerate(remote_layout.spans(file.size, part_bytes)):
            data = opened.read(length)
            whole.update(data)
            yield partial(_send_part, objects, file.sha256, index, data, there)


def _send_part(objects: Objects, sha256: str, index: int, data: bytes, there: dict[str, int]) -> Sent:
    part = hashlib.sha256(data).hexdigest()
    target = remote_layout.part_path(sha256, index, part)
    if there.get(target) != len(data):
        objects.write(target, data)
    return part, len(data)


def _require_parts(objects: Objects, file: FileRecord, index: remote_layout.PartIndex) -> None:
    """Looks whether what was sent has arrived in full.

    It looks again after a moment: a server of files may not list one that another pusher is just replacing
    by the same bytes.
    """
    spans = remote_layout.spans(index.size, index.part_bytes)
    wanted = {
        remote_layout.part_path(file.sha256, number, part): length
        for number, (part, (_, length)) in enumerate(zip(index.parts, spans, strict=True))
    }
    for attempt in range(LOOKS):
        there = objects.listing(remote_layout.parts_prefix(file.sha256))
        lacking = [path for path, length in wanted.items() if there.get(path) != length]
        if not lacking:
            return
        time.sleep(objects.patience.backoff_s * 2**attempt)
    path = lacking[0]
    raise StoreUnusable(
        f"{objects.place.url}: {path} has {there.get(path, 0):,} of {wanted[path]:,} bytes after it was "
        "written; run again, what is there is kept"
    )


def _require(path: Path, file: FileRecord, found: str) -> None:
    if found != file.sha256:
        raise ArtifactCorrupt(
            f"{path} has sha256 {found}, not {file.sha256}; it is not pushed, build its recipe again"
        )
