"""Free space and disk errors, and the messages about them."""

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from artifacts.errors import DestinationTaken, StoreUnusable

GC_BYTES = 1 << 20
"""Free bytes with which gc works even without a reserve."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left, quota reached."""


def is_full(exc: BaseException) -> bool:
    """Whether an exception, or one that caused it, is due to a full disk.

    Libraries in Rust and C++ (safetensors, torch) report it only as text in an exception of their own type.
    """
    if isinstance(exc, OSError) and exc.errno in FULL:
        return True
    if os.strerror(errno.ENOSPC) in str(exc):
        return True
    cause = exc.__cause__ or exc.__context__
    return cause is not None and is_full(cause)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user can still write below `path`, which need not exist yet."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    # A store that does not exist yet lies on the disk of its nearest existing parent.
    return shutil.disk_usage(existing).free


def size_bytes(root: Path) -> int:
    """Bytes of all files below `root`."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


def allocated_bytes(*roots: Path) -> int:
    """Bytes allocated for files below these directories: without holes, and hard links once."""
    sizes = {}
    for path in (path for root in roots for path in root.rglob("*") if path.is_file()):
        stat = path.lstat()
        # Keyed by inode, so that hard links count once; `st_blocks` is in units of 512 bytes.
        sizes[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(sizes.values())


def refuse_taken(target: Path) -> None:
    """Raise a DestinationTaken unless the target is missing or an empty directory."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise DestinationTaken(f"{target} is not empty; give a new or an empty directory")


def disk_of(path: Path) -> Path:
    """Mount point of the file system of `path`, which need not exist yet."""
    mount = path.absolute()
    while not mount.exists() or not os.path.ismount(mount):
        mount = mount.parent
    return mount


def full_disk_message(
    root: Path, content: str, *, needed_bytes: int = 0, written_bytes: int = 0, instead: str = ""
) -> str:
    """The message for a full disk: which one, its free bytes, the bytes that `content` needs, and what to do.

    `needed_bytes` is the total, 0 where it is unknown; `instead` is a remedy other than freeing space.
    """
    free = free_bytes(root)
    missing = needed_bytes - written_bytes - free
    if needed_bytes:
        requirement = f"needs {needed_bytes:,} bytes, and"
    else:
        requirement = (
            f"needs more than {written_bytes:,} bytes, and" if written_bytes else "cannot be written:"
        )
    unit = "" if needed_bytes or written_bytes else " bytes"  # said already
    remedy = f"free {missing:,} bytes more there" if needed_bytes and missing > 0 else "free space there"
    # gc needs a little room itself
    can_collect = (root / "objects").is_dir() and (free > GC_BYTES or any(root.glob("reserve/*")))
    collect = f" (`enginery --store {root} store gc` shows what can go)" if can_collect else ""
    return (
        f"disk full: {content} {requirement} {free:,}{unit} are free at {root}, on the disk mounted at"
        f" {disk_of(root)}; {remedy}{collect}{f', or {instead}' if instead else ''}"
    )


class ReportFullDisk:
    """Turns a full disk inside the block into a StoreUnusable with the bytes needed and free."""

    def __init__(
        self, root: Path, what: str, *, needed_bytes: int = 0, draft: Path | None = None, instead: str = ""
    ) -> None:
        self.root, self.what, self.needed_bytes = root, what, needed_bytes
        self.draft = draft
        """Directory that is being filled, if any."""
        self.instead = instead
        """A remedy other than freeing space."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A StoreUnusable has its message already, from an inner block that knew more.
        if exc is not None and not isinstance(exc, StoreUnusable) and is_full(exc):
            raise StoreUnusable(self.message()) from exc

    def require(self) -> None:
        """Raise a StoreUnusable before the work if the bytes needed are known and exceed the free ones."""
        if self.needed_bytes > free_bytes(self.root):
            raise StoreUnusable(self.message())

    def message(self) -> str:
        """The message with the bytes free and needed, as far as they are known."""
        written = size_bytes(self.draft) if self.draft is not None and self.draft.exists() else 0
        return full_disk_message(
            self.root,
            self.what,
            needed_bytes=self.needed_bytes,
            written_bytes=written,
            instead=self.instead,
        )


class ReportUnwritable:
    """Turns any other OSError inside the block into a StoreUnusable that names the directory."""

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
