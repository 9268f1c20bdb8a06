"""Where errors end: a message and an exit code for the expected, a traceback and 70 for bugs."""

import errno
import os
import re
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifacts.store import disk
from artifacts.store.disk import is_full
from pipeline.cli.output import Output
from pipeline.errors import EXIT_CODES

HOST = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG,
    errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMFILE, errno.ENFILE, errno.ENXIO, errno.ETXTBSY,
})  # fmt: skip
"""Errors of the file system that are no bug of ours: the message names the file and the reason."""

WORD, LINE, LINES = 300, 2000, 200
"""Longest word and line of a message, in characters, and most lines; a digest has 64, a path seldom 200."""

LONG_WORD = re.compile(rf"\S{{{WORD + 1},}}")


def report(exc: Exception, out: Output | None = None, *, color: bool = True) -> int:
    """Prints the error, in a `--json` run without an answer as its document too; returns the exit code."""
    out = out or Output(color=color)
    code, message = _classify_error(exc)
    if code == 70:
        traceback.print_exception(exc)
    notes = [shorten_message(note) for note in getattr(exc, "__notes__", ())]
    out.error(message, notes)
    out.failed(failure(code, message, notes, kind=type(exc).__name__, **_list_problems(exc)))
    return code


def failure(code: int, message: str, hints: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """The document that `--json` prints for a failed command."""
    return {"error": {"exit_code": code, "message": message, "hints": list(hints), **more}}


def _classify_error(exc: Exception) -> tuple[int, str]:
    # by the nearest class in the table: a subclass may have a code of its own
    code = next((EXIT_CODES[kind] for kind in type(exc).__mro__ if kind in EXIT_CODES), None)
    if code is not None:
        return code, shorten_message(str(exc))
    if is_full(exc):  # raised where no caller checks the free space
        return 4, shorten_message(_name_full_disk(exc))
    if isinstance(exc, OSError) and exc.errno in HOST:
        where = f"{exc.filename}: " if exc.filename is not None else ""
        return 4, shorten_message(f"{where}{exc.strerror}; give another path, or fix this one")
    return 70, shorten_message(
        f"this is a bug in Enginery: {type(exc).__name__}: {exc}; please report it with the lines above"
    )


def _name_full_disk(exc: BaseException) -> str:
    """Names the full disk: that of the error's file, else the free space wherever files are written."""
    name = getattr(exc, "filename", None)
    if isinstance(name, str | bytes):
        return disk.full_disk_message(Path(os.fsdecode(name)).parent, os.fsdecode(name))
    places = {disk.disk_of(place) for place in (Path.cwd(), Path.home(), Path(tempfile.gettempdir()))}
    free = ", ".join(f"{disk.free_bytes(folder):,} at {folder}" for folder in sorted(places))
    return f"disk full: {exc}; bytes free: {free}; free space on the full disk, or set $TMPDIR"


def _list_problems(exc: Exception) -> dict[str, Any]:
    """The problems of a recipe one by one."""
    problems = getattr(exc, "problems", None)
    return {} if problems is None else {"problems": [shorten_message(problem) for problem in problems]}


def shorten_message(text: str) -> str:
    """The message with long words and lines cut in their middle, and at most LINES lines."""
    lines = text.splitlines()
    cut_lines = [
        _cut(LONG_WORD.sub(lambda match: _cut(match[0], WORD), line), LINE) for line in lines[:LINES]
    ]
    return "\n".join(cut_lines + ([f"... {len(lines) - LINES} more lines"] if len(lines) > LINES else []))


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]}...{text[-end:]}"
