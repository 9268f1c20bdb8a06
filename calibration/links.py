"""Links in a directory that a person names: one that leads out of it is not followed.

What is read there is copied and published in the end, and whoever made the directory need not be who
publishes it. The directory itself may be a link, links inside it may lead to other places inside it, and in a
cache of huggingface_hub the links of a snapshot lead to the blobs of its repository.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

SHOWN = 3
"""Links that a message shows."""

CACHED = ("models--", "datasets--", "spaces--")
"""How the directories of a huggingface_hub cache begin, one per repository."""

SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(OSError):
    """A name in a directory is a link to somewhere else, or below one."""


def leads_out(root: Path, name: str) -> Path | None:
    """Where a name below `root` leads, if that is outside; None if inside, even if nothing is there."""
    real = Path(os.path.realpath(root / name))
    return None if _base(root, real) else real


def describe_links(root: Path, names: Iterable[str]) -> str:
    """Says which of these names lead out of `root`, and what to do about it; empty where none does."""
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
    """Opens a name below `root` for reading, without waiting for a FIFO; returns the file's descriptor.

    A link that leads out of `root` is a LeadsOut; one that is put in the way meanwhile another OSError.
    """
    return open_located(*located(root, name))


def located(root: Path, name: str) -> tuple[Path, Path]:
    """Where a name below `root` is, without links: a directory that may be read, and the path below it."""
    real = Path(os.path.realpath(root / name))
    base = _base(root, real)
    if base is None:
        raise LeadsOut(errno.ELOOP, describe_links(root, [name]), str(root / name))
    return base, real.relative_to(base)


def open_located(base: Path, path: Path) -> int:
    """Opens what `located` found, folder by folder, so that no link is followed that came there since."""
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
    """The directory that may be read and that holds a path without links; None where there is none."""
    home = Path(os.path.realpath(root))
    return next((base for base in (home, *_blobs(home)) if base in real.parents), None)


def _blobs(home: Path) -> Iterable[Path]:
    """Where the blobs are, for a directory in a snapshot of a huggingface_hub cache."""
    for snapshots in home.parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith(CACHED):
            yield snapshots.parent / "blobs"
