"""What a disk can refuse, said in words."""

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from artifacts.errors import DestinationTaken, StoreUnusable

GC_BYTES = 1 << 20
"""With so much free, and with a reserve, a collection works."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left, quota reached."""


def is_full(exc: BaseException) -> bool:
    """Whether the failure, or one that it came from, is a full disk.

    Libraries written in Rust and C++ (safetensors, torch) report it as text in an exception of their own.
    """
    if isinstance(exc, OSError) and exc.errno in FULL:
        return True
    if os.strerror(errno.ENOSPC) in str(exc):
        return True
    cause = exc.__cause__ or exc.__context__
    return cause is not None and is_full(cause)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user can still write below `path`, which need not exist yet."""
    found = path.absolute()
    while not found.exists():
        found = found.parent
    return shutil.disk_usage(found).free


def size_bytes(root: Path) -> int:
    """Bytes of all files below `root`."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


def allocated_bytes(*roots: Path) -> int:
    """Bytes that the files below these directories take; holes take none, a file of two names counts once."""
    sizes = {}
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        found = path.lstat()
        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def refuse_taken(target: Path) -> None:
    """Raise a DestinationTaken for a target that is anything but absent or an empty directory."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise DestinationTaken(f"{target} already holds something; give a new or an empty directory")


def disk_of(path: Path) -> Path:
    """Where the file system is mounted that `path`, which need not exist yet, is or would be on."""
    found = path.absolute()
    while not found.exists() or not os.path.ismount(found):
        found = found.parent
    return found


def full(root: Path, what: str, *, needed_bytes: int = 0, written_bytes: int = 0, instead: str = "") -> str:
    """The words for a full disk: which, how much is free on it, how much `what` needs, and what to do.

    `needed_bytes` are in all, where that is known; `instead` is what can be done without freeing any.
    """
    free = free_bytes(root)
    more = needed_bytes - written_bytes - free
    if needed_bytes:
        needs = f"needs {needed_bytes:,} bytes, and"
    else:
        needs = f"needs more than {written_bytes:,} bytes, and" if written_bytes else "cannot be written:"
    unit = "" if needed_bytes or written_bytes else " bytes"  # said already
    room = f"free {more:,} bytes more there" if needed_bytes and more > 0 else "free space there"
    # gc needs a little room itself
    works = (root / "objects").is_dir() and (free > GC_BYTES or any(root.glob("reserve/*")))
    collect = f" (`enginery --store {root} store gc` shows what can go)" if works else ""
    return (
        f"disk full: {what} {needs} {free:,}{unit} are free at {root}, on the disk mounted at"
        f" {disk_of(root)}; {room}{collect}{f', or {instead}' if instead else ''}"
    )


class FullDiskSaid:
    """Turns a full disk inside the block into a StoreUnusable: which, how much is needed and free."""

    def __init__(
        self, root: Path, what: str, *, needed_bytes: int = 0, draft: Path | None = None, instead: str = ""
    ) -> None:
        self.root, self.what, self.needed_bytes = root, what, needed_bytes
        self.draft = draft
        """Directory being filled, where there is one."""
        self.instead = instead
        """What can be done without freeing space."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is not None and not isinstance(exc, StoreUnusable) and is_full(exc):
            raise StoreUnusable(self.message()) from exc

    def require(self) -> None:
        """Refuses before the work when the bytes needed are known and more than are free."""
        if self.needed_bytes > free_bytes(self.root):
            raise StoreUnusable(self.message())

    def message(self) -> str:
        """How much is free and needed, as far as it is known."""
        written = size_bytes(self.draft) if self.draft is not None and self.draft.exists() else 0
        return full(
            self.root,
            self.what,
            needed_bytes=self.needed_bytes,
            written_bytes=written,
            instead=self.instead,
        )


class UnwritableSaid:
    """Turns any other refusal of the disk inside the block into a StoreUnusable that names the directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError) and not is_full(exc):
            reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
            raise StoreUnusable(
                f"{self.root} cannot be written: {reason} ({exc.filename}); choose another directory"
            ) from exc
