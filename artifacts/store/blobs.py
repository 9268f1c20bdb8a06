"""Every file's bytes once: contents by digest, hard-linked into all artifacts that have them."""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from artifacts.digest import FileDigests
from artifacts.manifest import FileRecord

log = logging.getLogger(__name__)

UNSHARED = frozenset(
    {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
)
"""What a file system says that has no hard links, has no more of them for this file, or forbids them on
files of another user. An artifact then keeps bytes of its own."""


class Blobs:
    """Contents of one store, `<sha[:2]>/<sha>`; one with a single name is used by no artifact."""

    def __init__(self, root: Path, digests: FileDigests) -> None:
        self.root, self._digests = root, digests

    def path(self, sha256: str) -> Path:
        """Where the content with this digest is, or would be."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"digest {sha256!r} is not 64 hexadecimal digits")
        return self.root / sha256[:2] / sha256

    def digests(self) -> list[str]:
        """Digests of all contents, sorted."""
        return sorted(path.name for path in self.root.glob("??/*") if re.fullmatch("[0-9a-f]{64}", path.name))

    def sound(self, records: Iterable[FileRecord]) -> set[str]:
        """Digests of those contents that are here; reads the ones that no remembered digest vouches for.

        One that is here with other bytes is not among them.
        """
        sizes = {record.sha256: record.size for record in records if record.size}
        while True:
            present = [path for path in map(self.path, sizes) if _has_size(path, sizes[path.name])]
            try:
                return {
                    path.name
                    for path, sha256 in self._digests.digests(present).items()
                    if sha256 == path.name
                }
            except FileNotFoundError:  # collected since we looked
                continue

    def draw(self, root: Path, files: Mapping[str, FileRecord], temporary: Path) -> None:
        """Turn every file below `root` whose content is here into a link to it, also one that `root` lacks.

        The files that are there have the bytes of their records; `temporary` is a free name on the same disk.
        What is a link already was read for its record, and is not read again.
        """
        others = {name: record for name, record in files.items() if not self._is(root / name, record)}
        present = self.sound(others.values())
        for name, record in others.items():
            if record.sha256 in present:
                self.place(record.sha256, root / name, temporary)

    def add(self, root: Path, files: Mapping[str, FileRecord], temporary: Path, since_ns: int) -> None:
        """Give every file below `root` the name of its content too, in place of one found damaged.

        The files have the bytes of their records, as was found by reading after `since_ns`, and are on disk.
        """
        for name, record in files.items():
            if record.size:
                self._add(root / name, record, temporary)
        self._digests.vouch({root / name: files[name].sha256 for name in files}, since_ns)

    def place(self, sha256: str, target: Path, temporary: Path) -> bool:
        """Make `target` a link to a content, replacing what is there; False where that cannot be linked."""
        blob = self.path(sha256)
        try:
            if target.exists() and target.samefile(blob):
                return True
            os.link(blob, temporary)
        except OSError as exc:
            if exc.errno not in UNSHARED | {errno.ENOENT}:  # collected since we looked
                raise
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        return True

    def _add(self, path: Path, record: FileRecord, temporary: Path) -> None:
        blob = self.path(record.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # collected, or the artifact discarded, since we looked
            try:
                os.link(path, blob)
            except FileExistsError:
                if path.samefile(blob):
                    return
                if record.sha256 in self.sound([record]):
                    self.place(record.sha256, path, temporary)
                else:
                    self._replace(path, blob, temporary)
            except OSError as exc:
                if exc.errno not in UNSHARED | {errno.ENOENT}:
                    raise

    def _is(self, path: Path, record: FileRecord) -> bool:
        """Whether a file is a link to its content."""
        try:
            return path.samefile(self.path(record.sha256))
        except FileNotFoundError:
            return False

    def _replace(self, path: Path, blob: Path, temporary: Path) -> None:
        """Puts right bytes in the place of a content that was found damaged."""
        log.warning("%s does not have the bytes of its name; it is replaced, its old links are not", blob)
        os.link(path, temporary)
        temporary.replace(blob)

    def release(self, digests: Iterable[str]) -> int:
        """Remove those of the contents that no artifact uses; return bytes freed."""
        freed = 0
        for blob in map(self.path, digests):
            try:
                stat_ = blob.lstat()
                if stat_.st_nlink == 1:
                    blob.unlink()
                    freed += stat_.st_size
            except FileNotFoundError:
                continue
        return freed


def _has_size(path: Path, size: int) -> bool:
    try:
        stat_ = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(stat_.st_mode) and stat_.st_size == size
