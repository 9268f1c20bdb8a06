"""Untrusted tar archives: checked before a byte is written, and never more bytes than declared.

Members are plain files and directories. What a compressed archive may unpack to is bounded by its own size,
so that neither disk nor memory depends on what it declares.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pipeline.errors import ExchangeRefused

MAX_FILES = 10_000
"""Members of an archive, or files of a model, that are taken."""

RATIO, SLACK_BYTES = 50, 1 << 20
"""A compressed archive may unpack to so many times its size, and so much on top: weights come to twice, JSON
and texts to ten times."""

READ_BYTES = 4 << 20
"""Longest read: tarfile holds a member's extended header in memory at once."""

BROKEN = (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, gzip.BadGzipFile)
"""What tarfile and gzip raise for bytes that are not what they should be."""


class _Bounded:
    """A file for tarfile that refuses to be read beyond `limit`, or much at once."""

    def __init__(self, file: IO[bytes], where: Path, limit: int, *, compressed: bool) -> None:
        self.file, self.where, self.limit, self.compressed = file, where, limit, compressed

    def tell(self) -> int:
        """Bytes before the next one."""
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place, as tarfile does to skip a member."""
        self._require(offset if whence == 0 else self.tell() + offset)
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        # tarfile takes the length of an extended header from the archive, so an archive could name any
        if not 0 <= size <= READ_BYTES:
            raise ExchangeRefused(
                f"{self.where}: a header has {size:,} bytes, at most {READ_BYTES:,} are read; push it again"
            )
        self._require(self.tell() + size - tarfile.RECORDSIZE)  # the end may be padded
        return self.file.read(size)

    def _require(self, end: int) -> None:
        if end > self.limit and not self.compressed:
            raise ExchangeRefused(f"{self.where}: is cut off after {self.limit:,} bytes; push it again")
        if end > self.limit:
            raise ExchangeRefused(
                f"{self.where}: its {self.where.stat().st_size:,} bytes unpack to more than {self.limit:,}, "
                f"which no model does; push it without compression"
            )


def members(blob: Path, *, compressed: bool) -> dict[str, int]:
    """Name -> bytes of every file in an archive, by its headers; a link in it is an ExchangeRefused."""
    sizes: dict[str, int] = {}
    for member, _ in _plain(blob, compressed=compressed):
        name = _name(member)
        if name in sizes:
            raise ExchangeRefused(f"{blob}: {name!r} is in the archive twice; push it again")
        if len(sizes) >= MAX_FILES:
            raise ExchangeRefused(f"{blob}: more than {MAX_FILES:,} files, the most that an import takes")
        sizes[name] = member.size
    return sizes


def extract(blob: Path, place: Callable[[str], Path | None], *, compressed: bool) -> None:
    """Writes each file of an archive to its place; those that have none are left out."""
    for member, archive in _plain(blob, compressed=compressed):
        path, opened = place(_name(member)), archive.extractfile(member)
        if path is None or opened is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened, path.open("xb") as out:  # "xb": no member overwrites a file
            while chunk := opened.read(READ_BYTES):
                out.write(chunk)


def _plain(blob: Path, *, compressed: bool) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with _opened(blob, compressed=compressed) as archive:
        for number, member in enumerate(archive):
            # directories are not in MAX_FILES, and an archive of nothing but them must end too
            if number > 2 * MAX_FILES:
                raise ExchangeRefused(
                    f"{blob}: more than {2 * MAX_FILES:,} members, the most that an import takes"
                )
            if member.isdir():
                continue
            # a link could lead out of the target, and a sparse member declares bytes that the archive lacks
            if not member.isfile() or member.issparse():
                raise ExchangeRefused(f"{blob}: {member.name!r} is not a plain file; push the file itself")
            yield member, archive


@contextmanager
def _opened(blob: Path, *, compressed: bool) -> Iterator[tarfile.TarFile]:
    size = blob.stat().st_size
    limit = RATIO * size + SLACK_BYTES if compressed else size
    try:
        with blob.open("rb") as raw:
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if compressed else raw)
            bounded = cast("IO[bytes]", _Bounded(file, blob, limit, compressed=compressed))
            # "r:" forbids tarfile's own decompression, which would read past the bound
            with tarfile.open(fileobj=bounded, mode="r:") as archive:
                yield archive
    except BROKEN as exc:
        raise ExchangeRefused(f"{blob}: is not a readable tar archive ({exc}); push it again") from None


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")
