"""Follows an alias: pulls every version that it moves to, then replaces the link `current` atomically."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnusable
from artifacts.version import VersionRecord, parse_reference

log = logging.getLogger(__name__)

CURRENT = "current"
"""Link to the directory of the version that the alias points at."""

LONGEST_WAIT_S = 600.0
"""Longest pause between two attempts while store or registry cannot be used."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version that the alias now points at, and its directory."""

    record: VersionRecord
    directory: Path
    """`DEST/NUMBER`, to which `DEST/current` points."""


Sleep = Callable[[float], None]


class Puller(Protocol):
    """What following an alias needs of a client."""

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`; otherwise a NotFound."""

    def pull(self, reference: str, dest: str | Path) -> Path:
        """Copies a version to `dest`, verified."""

    def verify(self, reference: str | Path) -> list[str]:
        """Everything wrong with a pulled directory."""


def watch(
    client: Puller,
    reference: str,
    dest: str | Path,
    *,
    every_s: float = 30.0,
    keep: int = 2,
    sleep: Sleep = time.sleep,
) -> Iterator[Change]:
    """Yield the version that `NAME@ALIAS` points at, and then each one that it moves to, without end.

    Each is pulled to `dest/NUMBER` and verified before `dest/current` is replaced by one rename; the newest
    `keep` versions that were current stay, so that a rollback needs no transfer. An unusable store or
    registry, and a damaged version, cause a warning and retries with growing pauses; NotFound for a missing
    alias or name.
    """
    if parse_reference(reference).alias is None:
        raise NotFound(f"{reference!r} cannot move, so there is nothing to watch; give NAME@ALIAS")
    root, number, wait_s = Path(dest).absolute(), 0, every_s
    while True:
        try:
            record = client.resolve(reference)
            if record.number != number:
                directory = _place_version(client, record, root)
                number = record.number
                _remove_old(root, keep)
                yield Change(record, directory)
            wait_s = every_s
        except (StoreUnusable, ArtifactCorrupt) as exc:
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            log.warning("%s stays unchanged, next attempt in %.0f s: %s", root / CURRENT, wait_s, exc)
        sleep(wait_s)


def _place_version(client: Puller, record: VersionRecord, root: Path) -> Path:
    """Make the version current: pull it unless its directory is intact, then replace the link."""
    directory = root / str(record.number)
    # Cheap test first; `verify` reads every byte.
    if directory.is_dir() and (not _holds_build(directory, record) or client.verify(directory)):
        shutil.rmtree(directory)
    if not directory.is_dir():
        client.pull(record.reference, directory)
    os.utime(directory)  # when it became current, for `_remove_old`
    # A link cannot be changed in place, but a rename replaces it at once: readers always find a version.
    link = root / f".{CURRENT}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(directory.name)
    link.replace(root / CURRENT)
    return directory


def _holds_build(directory: Path, record: VersionRecord) -> bool:
    """Whether the directory holds this build: the number may be from another registry's version."""
    manifest = directory / "manifest.json"
    text = manifest.read_text(errors="replace") if manifest.is_file() else ""
    return record.engine_key in text and (record.manifest_digest or "") in text


def _remove_old(root: Path, keep: int) -> None:
    """Remove the versions that were current longest ago, never the current one."""
    current = (root / CURRENT).resolve()
    old = [path for path in root.iterdir() if path.name.isdigit() and path.is_dir() and path != current]
    for path in sorted(old, key=lambda directory: directory.stat().st_mtime, reverse=True)[
        max(0, keep - 1) :
    ]:
        shutil.rmtree(path)
