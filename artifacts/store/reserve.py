"""Reserved space in a store, so that gc and reads still work on a full disk.

Leases, locks and rows of the registry need bytes and inodes before a gc can free any. So a store keeps a few
dummy files in `reserve/`. A process that is about to write a small file first removes as many of them as it
needs; when the last lease ends, they are created again. They hold random bytes, since a compressing file
system would reserve nothing for zeros or for allocated but unwritten space.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

from artifacts.store.disk import FULL, free_bytes

FOLDER = "reserve"
PROBE = "probe."

PIECES, PIECE_BYTES = 16, 128 << 10
"""2 MiB in all; each piece also reserves an inode."""

ROOM_BYTES = 256 << 10
"""Several times the size of leases, locks and directories of drafts."""

REGISTRY_BYTES = 1 << 20
"""Size of a transaction on the registry: a journal of every changed page, and the new pages."""

ROOM_INODES = 8

PLENTY_BYTES = 16 * PIECES * PIECE_BYTES
"""Free bytes below which no reserve is created: other data needs the space more."""


def keep(root: Path) -> None:
    """Refill a store's reserve if there is space and no lease is held.

    Errors are ignored, since a later call tries again; a directory that is not a store gets no reserve.
    """
    folder = root / FOLDER
    with suppress(OSError):  # not a store, full, read-only or another user's
        if any((root / "leases").iterdir()):  # their holders may still need the space that was freed for them
            return
        if not folder.is_dir():
            if not (root / "objects").is_dir() or free_bytes(root) < PLENTY_BYTES:
                return  # nothing to protect yet, or too little space
            folder.mkdir(exist_ok=True)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        for name in sizes:
            if name.startswith(PROBE):  # left by a killed process; a live one no longer needs it
                (folder / name).unlink()
        for name in (f"{number:02}" for number in range(PIECES)):
            if sizes.get(name) != PIECE_BYTES:
                _write(folder / name, PIECE_BYTES)


def make_room(root: Path, nbytes: int = ROOM_BYTES) -> bool:
    """Remove pieces of a store's reserve, as few as needed, until `nbytes` and some inodes are free.

    Returns whether they are; if not, the caller's next write reports the full disk.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return free_bytes(root) >= nbytes
    for piece in sorted(folder.glob("[0-9]*")):
        if _fits(folder, nbytes):
            return True
        with suppress(OSError):
            piece.unlink()
    return _fits(folder, nbytes)


def _fits(folder: Path, nbytes: int) -> bool:
    """Whether so many bytes can be written; tests it by writing them, since `statvfs` ignores quotas."""
    stat = os.statvfs(folder)
    if stat.f_files and stat.f_favail < ROOM_INODES:  # some file systems count no inodes
        return False
    probe = folder / f"{PROBE}{os.getpid()}.{threading.get_native_id()}"
    try:
        # The name holds the thread too: two probes of one process must not remove each other's file.
        _write(probe, nbytes)
        probe.unlink()
    except OSError as exc:
        return exc.errno not in FULL  # without write permission, no space is needed either
    return True


def _write(path: Path, nbytes: int) -> None:
    """Write a file of random bytes; leaves no file if they do not fit."""
    try:
        path.write_bytes(os.urandom(nbytes))
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
