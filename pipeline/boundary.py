"""Where errors end: a message and an exit code for the expected, a traceback and 70 for bugs."""

import os
import tempfile
import traceback
from pathlib import Path

from artifacts.store import disk
from artifacts.store.disk import is_full
from pipeline.errors import EXIT_CODES
from pipeline.output import Output


def report(exc: Exception, *, color: bool = True) -> int:
    """Prints the error and returns the shell's exit code."""
    out = Output(color=color)
    code = next((EXIT_CODES[kind] for kind in type(exc).__mro__ if kind in EXIT_CODES), None)
    if code is None and is_full(exc):  # somewhere nobody thought of
        out.error(_full(exc))
        return 4
    if code is None:
        traceback.print_exception(exc)
        out.error(
            f"this is a bug in Enginery: {type(exc).__name__}: {exc}; please report it with the lines above"
        )
        return 70
    out.error(str(exc), getattr(exc, "__notes__", ()))
    return code


def _full(exc: BaseException) -> str:
    """Which disk is full: that of the file in the error, else what is free where anything is written."""
    name = getattr(exc, "filename", None)
    if isinstance(name, str | bytes):
        return disk.full(Path(os.fsdecode(name)).parent, os.fsdecode(name))
    places = {disk.disk_of(place) for place in (Path.cwd(), Path.home(), Path(tempfile.gettempdir()))}
    free = ", ".join(f"{disk.free_bytes(one):,} at {one}" for one in sorted(places))
    return f"disk full: {exc}; bytes free: {free}; free space where there is none, or set $TMPDIR"
