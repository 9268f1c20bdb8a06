"""Files that a person names: opened only where they are regular files, and read within a limit.

A FIFO would wait for ever, a device never ends, or acts on being opened. Bytes are bounded before they are
read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

TEXT_BYTES = 1 << 20
"""A key, a policy, a template, a recipe: what is larger is something else."""

SHOWN, PATH_SHOWN = 60, 300
"""Characters of a value, and of a path, that a message shows."""

NAME_BYTES, PATH_BYTES = 255, 4095
"""Longest name and longest path that a Linux file system takes."""

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
}


class FileRefused(Exception):
    """A file that a person names cannot be read: it is not there, something else, too large, or no text."""

    def __init__(self, path: str | Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path if len(str(path)) <= PATH_SHOWN else shortened(str(path))}: {why}")


def kind(mode: int) -> str:
    """What a file of that mode is, with its article."""
    return KINDS.get(stat.S_IFMT(mode), "a device")


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; a FileRefused for anything else, and for what cannot be opened."""
    try:
        _require_regular(path, path.stat().st_mode)
        # Between the two looks it may have become a FIFO, which must not make us wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise FileRefused(path, f"is a link to {path.readlink()}, which does not exist") from None
        raise FileRefused(path, "no such file") from None
    except (OSError, ValueError) as exc:  # a name with a zero byte is a ValueError
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise FileRefused(path, f"cannot be read ({why})") from None
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield file


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """The bytes of a regular file; a FileRefused for anything else, and for more than `limit`."""
    with open_regular(path) as file:
        try:
            data = file.read(limit + 1)
        except OSError as exc:
            raise FileRefused(path, f"cannot be read ({exc.strerror})") from None
    if len(data) > limit:
        raise FileRefused(path, f"is larger than {limit} bytes; at most that many are read")
    return data


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """The text of a regular file in UTF-8; a FileRefused for anything else, and beyond `limit` bytes."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as exc:
        raise FileRefused(
            path, f"is not UTF-8 at byte {exc.start + 1} ({exc.reason}); save it as UTF-8"
        ) from None


def require_writable(path: Path) -> None:
    """A FileRefused for a path that a text cannot be written to: opening a FIFO would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:  # not there yet, or told where it is opened
        return
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        raise FileRefused(path, f"is {kind(mode)}; give a file to write")


def require_kind(path: Path, expected: str) -> None:
    """A FileRefused where something else than what is wanted (`a file`, `a directory`) is at the path.

    What is not there yet is no error, and what may not be looked at is told where it is opened.
    """
    try:
        actual = kind(path.stat().st_mode)
    except NotADirectoryError:
        raise FileRefused(path, "is below something that is no directory; give another path") from None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise FileRefused(path, "is a link that leads to itself") from None
        return
    if actual != expected:
        raise FileRefused(path, f"is {actual}; it must be {expected}")


def is_text(text: str) -> bool:
    """Whether a database, a JSON document or a log can hold it: Unicode without NUL."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def path_problem(text: str) -> str:
    """Why no file can have this path; empty where one can."""
    if not text or text.isspace():
        return "is empty; give a path"
    if "\0" in text:
        return "holds a NUL character; no path can"
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return "holds half a surrogate pair; no path can"
    if len(data) > PATH_BYTES:
        return f"has {len(data)} bytes; a path has at most {PATH_BYTES}"
    longest = max(map(len, data.split(b"/")))
    return f"holds a name of {longest} bytes; it has at most {NAME_BYTES}" if longest > NAME_BYTES else ""


def user_path(text: str) -> Path:
    """The path that a person wrote, `~` resolved; a FileRefused where no file can have it."""
    if problem := path_problem(text):
        raise FileRefused(text, problem)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FileRefused(text, "begins with the home of a user who is not known here") from None


def resolved(path: Path) -> Path:
    """The path without links; a FileRefused for a link that leads to itself."""
    try:
        return path.resolve()
    except RuntimeError:
        raise FileRefused(path, "is a link that leads to itself") from None


def is_directory(path: str | Path) -> bool:
    """Whether a text names a directory; what no path can be, or nobody may look at, is none."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # a name too long, or a directory above that is closed
        return False


def shortened(text: str) -> str:
    """The text for a message: its beginning, where it is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileRefused(path, f"is {kind(mode)}; it must be a regular file, or a link to one")
