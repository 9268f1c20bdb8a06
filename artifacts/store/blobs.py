"""Contents by digest, stored once and hard-linked into all artifacts that have them."""

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
"""Errors of file systems without hard links, at their limit of links per file, or that forbid links to files
of other users. The artifact then keeps its own copy of the bytes."""


class Blobs:
    """Contents of one store in `<sha[:2]>/<sha>`; a content with one hard link is used by no artifact."""

    def __init__(self, root: Path, digests: FileDigests) -> None:
        self.root, self._digests = root, digests

    def path(self, sha256: str) -> Path:
        """Path of the content with this digest, existing or not."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"digest {sha256!r} is not 64 hexadecimal digits")
        return self.root / sha256[:2] / sha256

    def digests(self) -> list[str]:
        """Digests of all contents, sorted."""
        return sorted(path.name for path in self.root.glob("??/*") if re.fullmatch("[0-9a-f]{64}", path.name))

    def sound(self, records: Iterable[FileRecord]) -> set[str]:
        """Digests of the records whose contents exist and are intact; reads files without a cached digest.

        A damaged content is not among them.
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
            except FileNotFoundError:  # another process removed one since the listing: list again
                continue

    def draw(self, root: Path, files: Mapping[str, FileRecord], temporary: Path) -> None:
        """Replace every file below `root` whose content exists by a hard link to it, and add missing files.

        Existing files must have the bytes of their records; `temporary` is a free name on the same disk.
        Files that are links already are skipped.
        """
        others = {name: record for name, record in files.items() if not self._is(root / name, record)}
        present = self.sound(others.values())
        for name, record in others.items():
            if record.sha256 in present:
                self.place(record.sha256, root / name, temporary)

    def add(self, root: Path, files: Mapping[str, FileRecord], temporary: Path, since_ns: int) -> None:
        """Link every file below `root` as a content too, in place of a damaged content.

        The files must have the bytes of their records, as verified after `since_ns`, and be on disk.
        """
        for name, record in files.items():
            if record.size:
                self._add(root / name, record, temporary)
        self._digests.vouch({root / name: files[name].sha256 for name in files}, since_ns)

    def place(self, sha256: str, target: Path, temporary: Path) -> bool:
        """Make `target` a hard link to a content, replacing any file; False where it cannot be linked."""
        blob = self.path(sha256)
        try:
            if target.exists() and target.samefile(blob):
                return True
            os.link(blob, temporary)
        except OSError as exc:
            if exc.errno not in UNSHARED | {errno.ENOENT}:  # ENOENT: another process removed the content
                raise
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        # A link cannot replace a file; a rename can, and readers see the old file or the new one.
        temporary.replace(target)
        return True

    def _add(self, path: Path, record: FileRecord, temporary: Path) -> None:
        blob = self.path(record.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process removed the content or the artifact
            try:
                os.link(path, blob)
            except FileExistsError:
                # Another artifact has brought this content since `draw`, or the one there is damaged.
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
        """Replace a damaged content by the file's bytes."""
        log.warning("%s is damaged and is replaced; artifacts that link to it stay damaged", blob)
        # The new link takes the name in one step: at no moment is the content missing.
        os.link(path, temporary)
        temporary.replace(blob)

    def release(self, digests: Iterable[str]) -> int:
        """Remove the contents that no artifact uses; return the bytes freed."""
        freed = 0
        for blob in map(self.path, digests):
            try:
                stat_ = blob.lstat()
                # A process may link it before `unlink`: its link keeps the bytes, only this name is gone.
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
