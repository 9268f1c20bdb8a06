"""Reads files that a user names: only regular files, and only up to a limit.

Opening a FIFO would block forever, and reading a device may never end or have side effects.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

TEXT_BYTES = 1 << 20
"""Largest key, policy, template or recipe that is read."""

SHOWN, PATH_SHOWN = 60, 300
"""Most characters of a value, and of a path, that a message shows."""

NAME_BYTES, PATH_BYTES = 255, 4095
"""Longest name and longest path on Linux file systems."""

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
}


class FileRefused(Exception):
    """A file that a user names cannot be read: missing, not a regular file, too large, or not text."""

    def __init__(self, path: str | Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path if len(str(path)) <= PATH_SHOWN else shortened(str(path))}: {why}")


def kind(mode: int) -> str:
    """The kind of a file with that mode, with its article."""
    return KINDS.get(stat.S_IFMT(mode), "a device")


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; FileRefused for anything else, and on failure."""
    try:
        _require_regular(path, path.stat().st_mode)
        # O_NONBLOCK: the path may have become a FIFO since the check above, and opening that would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise FileRefused(path, f"is a link to {path.readlink()}, which does not exist") from None
        raise FileRefused(path, "no such file") from None
    except (OSError, ValueError) as exc:  # a name with a zero byte is a ValueError
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise FileRefused(path, f"cannot be read ({why})") from None
    with os.fdopen(descriptor, "rb") as file:
        # The opened file, which no other process can exchange any more.
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield file


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """The bytes of a regular file; FileRefused for anything else, and for more than `limit` bytes."""
    with open_regular(path) as file:
        try:
            # One byte more, to tell a file at the limit from a longer one.
            data = file.read(limit + 1)
        except OSError as exc:
            raise FileRefused(path, f"cannot be read ({exc.strerror})") from None
    if len(data) > limit:
        raise FileRefused(path, f"is larger than {limit} bytes; at most that many are read")
    return data


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """The text of a regular UTF-8 file; FileRefused for anything else, and for more than `limit` bytes."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as exc:
        raise FileRefused(
            path, f"is not UTF-8 at byte {exc.start + 1} ({exc.reason}); save it as UTF-8"
        ) from None


def require_writable(path: Path) -> None:
    """Raise a FileRefused unless text can be written to the path: opening a FIFO would block forever."""
    try:
        mode = path.stat().st_mode
    except OSError:  # missing, or reported when it is opened
        return
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        raise FileRefused(path, f"is {kind(mode)}; give a file to write")


def require_kind(path: Path, expected: str) -> None:
    """Raise a FileRefused if the path is not of the expected kind (`a file`, `a directory`).

    A missing path is no error; a path without access is reported when it is opened.
    """
    try:
        actual = kind(path.stat().st_mode)
    except NotADirectoryError:
        raise FileRefused(path, "is below a path that is not a directory; give another path") from None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise FileRefused(path, "is a link that leads to itself") from None
        return
    if actual != expected:
        raise FileRefused(path, f"is {actual}; it must be {expected}")


def is_text(text: str) -> bool:
    """Whether the text can be stored in databases, JSON documents and logs: valid Unicode without NUL."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def path_problem(text: str) -> str:
    """The reason why no file can have this path; empty if a file can."""
    if not text or text.isspace():
        return "is empty; give a path"
    if "\0" in text:
        return "has a NUL character, which no path can have"
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return "has half a surrogate pair, which no path can have"
    if len(data) > PATH_BYTES:
        return f"has {len(data)} bytes; a path has at most {PATH_BYTES}"
    longest = max(map(len, data.split(b"/")))
    return f"has a name of {longest} bytes; a name has at most {NAME_BYTES}" if longest > NAME_BYTES else ""


def user_path(text: str) -> Path:
    """A user's path with `~` expanded; FileRefused where no file can have it."""
    if problem := path_problem(text):
        raise FileRefused(text, problem)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FileRefused(text, "begins with the home of an unknown user") from None


def resolved(path: Path) -> Path:
    """The path with links resolved; FileRefused for a loop of links."""
    try:
        return path.resolve()
    except RuntimeError:
        raise FileRefused(path, "is a link that leads to itself") from None


def is_directory(path: str | Path) -> bool:
    """Whether the path is a directory; False for an invalid path and for one without access."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # a name too long, or a directory above that is closed
        return False


def shortened(text: str) -> str:
    """The text for a message, shortened to its beginning if it is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileRefused(path, f"is {kind(mode)}; it must be a regular file, or a link to one")
