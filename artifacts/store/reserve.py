"""A little room kept in a store, so that a full disk is no dead end.

Leases, locks and the registry's rows need bytes and inodes before anything can be freed or read under them.
A store therefore keeps a few files of no use in `reserve/`. Whoever is about to write something small gives
up as many of them as it takes until that fits; whoever leaves the store last makes them again. They hold
random bytes: on file systems that compress, zeros and what is only allocated reserve nothing.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

from artifacts.store.disk import FULL, free_bytes

FOLDER = "reserve"
PROBE = "probe."

PIECES, PIECE_BYTES = 16, 128 << 10
"""2 MiB in all; each piece is an inode too."""

ROOM_BYTES = 256 << 10
"""What leases, locks and drafts' directories take, several times over."""

REGISTRY_BYTES = 1 << 20
"""What a transaction on the registry takes: a journal of every page that it changes, and the new pages."""

ROOM_INODES = 8

PLENTY_BYTES = 16 * PIECES * PIECE_BYTES
"""A disk with less than this free gets no reserve: others need the room more."""


def keep(root: Path) -> None:
    """Make what is missing of a store's reserve, where there is room and nobody needs that now.

    A refusal is left to the next one; a directory that is no store gets none.
    """
    folder = root / FOLDER
    with suppress(OSError):  # no store, full, read-only or another user's
        if any((root / "leases").iterdir()):  # what their holders were given room for is still to be written
            return
        if not folder.is_dir():
            if not (root / "objects").is_dir() or free_bytes(root) < PLENTY_BYTES:
                return  # nothing to lose yet, or too little room for that
            folder.mkdir(exist_ok=True)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        for name in sizes:
            if name.startswith(PROBE):  # of a process that was killed; a living one needs it no more
                (folder / name).unlink()
        for name in (f"{number:02}" for number in range(PIECES)):
            if sizes.get(name) != PIECE_BYTES:
                _write(folder / name, PIECE_BYTES)


def make_room(root: Path, nbytes: int = ROOM_BYTES) -> bool:
    """Give up pieces of a store's reserve, as few as it takes, until `nbytes` and some inodes can be had.

    Returns whether they can; where not, whatever is written next says so.
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
    """Whether so many bytes can be written, by writing them: what statistics say knows of no quota."""
    stat = os.statvfs(folder)
    if stat.f_files and stat.f_favail < ROOM_INODES:  # some file systems count no inodes
        return False
    probe = folder / f"{PROBE}{os.getpid()}.{threading.get_native_id()}"
    try:
        _write(probe, nbytes)
        probe.unlink()
    except OSError as exc:
        return exc.errno not in FULL  # who may not write here needs no room either
    return True


def _write(path: Path, nbytes: int) -> None:
    """Makes a file of random bytes; none where they do not fit."""
    try:
        path.write_bytes(os.urandom(nbytes))
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
