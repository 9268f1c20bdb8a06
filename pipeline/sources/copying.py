"""Copies files of strangers: whole, unchanged meanwhile, with room for them, hashed."""

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from artifacts.errors import StoreUnusable
from artifacts.store import disk
from pipeline.errors import SourceError
from pipeline.models.model_json import open_regular

COPY_BYTES = 64 << 20
HASH_BYTES = 1 << 20
UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK)
"""What a file system answers when it cannot link, or copy within itself."""


def place(path: Path, target: Path) -> None:
    """Gives a file of our own cache a second name; copies it where the file system cannot do that.

    A file with a second name already is copied too: a third would touch one that the store may be reading.
    """
    if path.stat().st_nlink > 1:
        copy(path, target, lambda _: None)
        return
    try:
        os.link(path, target)
    except OSError as exc:
        if exc.errno not in UNSUPPORTED:
            raise
        copy(path, target, lambda _: None)


def require_room(directory: Path, nbytes: int) -> None:
    """Refuses to start a copy that the disk cannot hold; a StoreUnusable."""
    if nbytes > disk.free_bytes(directory):
        copy_name, instead = "the copy of the checkpoint", "use another --store"
        raise StoreUnusable(
            disk.full_disk_message(directory.parent, copy_name, needed_bytes=nbytes, instead=instead)
        )


def copy(source: Path, target: Path, tick: Callable[[int], None], root: Path | None = None) -> None:
    """Copies the bytes of `source`, sharing blocks where the file system can; never links.

    A file that changes meanwhile, or is a link out of `root` (by default its directory), is a SourceError.
    """
    with open_regular(source, root) as reader, target.open("wb") as writer:
        before, done = os.fstat(reader.fileno()), 0
        # offsets are explicit, so a call that fails half-way can go on by the other road
        while count := _copy_next(reader.fileno(), writer.fileno(), done):
            done += count
            tick(count)
        # Size and mtime of the open file: a path could by now name another one.
        after = os.fstat(reader.fileno())
    # bytes copied against the final size: a file that grew and kept its time is caught too
    if (done, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceError(
            f"{source}: {before.st_size} bytes at the start, {after.st_size} at the end, {done} copied; "
            "it changed during the copy: wait until it is written and run again"
        )


def _copy_next(reader: int, writer: int, offset: int) -> int:
    """Copies the next bytes from `offset`; 0 at the end."""
    with suppress(AttributeError):  # not every system has it
        try:
            return os.copy_file_range(reader, writer, COPY_BYTES, offset, offset)
        except OSError as exc:
            if exc.errno not in UNSUPPORTED:
                raise
    # pwrite may write less than it is given; its count says where the next call goes on
    return os.pwrite(writer, os.pread(reader, COPY_BYTES, offset), offset)


def sha256(path: Path, tick: Callable[[int], None]) -> str:
    """Returns the sha256 of a file in hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(HASH_BYTES):
            hasher.update(data)
            tick(len(data))
    return hasher.hexdigest()
