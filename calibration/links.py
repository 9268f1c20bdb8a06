"""Refuses symbolic links that lead out of a directory named by a user.

Files read there are copied and may be published, and the publisher may not be the author of the directory.
The directory itself may be a link, links inside it may lead to other places inside it, and in a cache of
huggingface_hub the links of a snapshot lead to the blobs of its repository.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

SHOWN = 3
"""Most links that a message shows."""

CACHED = ("models--", "datasets--", "spaces--")
"""Prefixes of the directories of a huggingface_hub cache, one per repository."""

SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(OSError):
    """A name in a directory leads outside by a symbolic link."""


def leads_out(root: Path, name: str) -> Path | None:
    """The target of a name below `root`, if it is outside; None if it is inside, existing or not."""
    real = Path(os.path.realpath(root / name))
    return None if _base(root, real) else real


def describe_links(root: Path, names: Iterable[str]) -> str:
    """The message about names that lead out of `root`, with the remedy; empty if none does."""
    links = {name: real for name in names if (real := leads_out(root, name)) is not None}
    if not links:
        return ""
    listed = ", ".join(f"{name} -> {real}" for name, real in list(links.items())[:SHOWN])
    others = f" and {len(links) - SHOWN} more" if len(links) > SHOWN else ""
    subject = "a link leads" if len(links) == 1 else f"{len(links)} links lead"
    return (
        f"{root}: {subject} out of it: {listed}{others}; what is there would be published, so it is not read:"
        " name the directory that holds the files, or make a copy with `cp -rL` once you have looked at them"
    )


def open_inside(root: Path, name: str) -> int:
    """Open a name below `root` for reading, without waiting for a FIFO; return the file's descriptor.

    LeadsOut for a link that leads out of `root`; another OSError for a link created meanwhile.
    """
    return open_located(*located(root, name))


def located(root: Path, name: str) -> tuple[Path, Path]:
    """A name below `root` with links resolved: an allowed directory, and the path below it."""
    real = Path(os.path.realpath(root / name))
    base = _base(root, real)
    if base is None:
        raise LeadsOut(errno.ELOOP, describe_links(root, [name]), str(root / name))
    return base, real.relative_to(base)


def open_located(base: Path, path: Path) -> int:
    """Open a path from `located`, folder by folder, so that links created since then are not followed."""
    # O_NOFOLLOW protects only the last component of a path, so each folder is opened relative to its parent.
    *folders, last = path.parts
    descriptor = os.open(base, SEARCH)
    try:
        for folder in folders:
            below = os.open(folder, SEARCH, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return os.open(last, READ, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _base(root: Path, real: Path) -> Path | None:
    """The allowed directory that contains a resolved path; None where there is none."""
    home = Path(os.path.realpath(root))
    return next((base for base in (home, *_blobs(home)) if base in real.parents), None)


def _blobs(home: Path) -> Iterable[Path]:
    """The blobs directories for a directory in a snapshot of a huggingface_hub cache."""
    for snapshots in home.parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith(CACHED):
            yield snapshots.parent / "blobs"
