"""Whether a child failed because a disk is full: then its log is empty, or says it in words of its own."""

import os
import tempfile
from pathlib import Path

from artifacts.errors import StoreUnusable
from artifacts.store import disk
from pipeline.errors import BuildFailed

FULL_BYTES = 1 << 20
"""A disk with less room than this is full, and a store's reserve may have been given up for so much."""


def explain_failure(
    exc: BuildFailed, what: str, *, store: Path | None = None, needed_bytes: int = 0
) -> BuildFailed | StoreUnusable:
    """The failure of `what` as a full disk, where one is: that of its store, or of temporary files.

    `needed_bytes` are what it needs in the store, where that is known. Any other failure is returned as is.
    """
    # Python goes to another place where not one byte can be written; what is no Python does not
    elsewhere = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    for place, size, instead in (
        (store, needed_bytes, "use another --store"),
        (elsewhere, 0, "set $TMPDIR to a directory with room"),
    ):
        # the store first: of it, the message can say how many bytes are needed
        if place is not None and disk.free_bytes(place) <= FULL_BYTES:
            return StoreUnusable(
                f"{disk.full_disk_message(place, what, needed_bytes=size, instead=instead)}\n{_brief(exc)}"
            )
    # the room may be back now that it has ended: then only its own words tell
    if not disk.is_full(exc):
        return exc
    places = [place for place in (store, elsewhere) if place is not None]
    now = [f"{disk.free_bytes(place):,} at {place}" for place in places]
    other = "" if store is None else "use another --store, "
    return StoreUnusable(
        f"disk full: {what} ran out of room; bytes that are free now that it has ended: {', '.join(now)};"
        f" free space there, {other}or set $TMPDIR\n{_brief(exc)}"
    )


def _brief(exc: BuildFailed) -> str:
    """What failed, where its log is and the last line of that: the rest only tells how a write went wrong."""
    first, *more = str(exc).splitlines()
    log = [line for line in more[:-1] if line.startswith("  log: ")]
    return "\n".join([first, *log, *more[-1:]])
