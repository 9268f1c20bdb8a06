"""Follows an alias: every version it moves to is pulled beside the others, then becomes `current` at once."""

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
"""Longest wait between two looks while store or registry cannot be used."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version that the alias now points at, in place."""

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
    """Yield the version that `NAME@ALIAS` points at now, and then each one that it is moved to, for ever.

    Each is pulled to `dest/NUMBER`, whole and verified, before `dest/current` is replaced by one rename; the
    newest `keep` that were current stay, so that a rollback costs no transfer. A store or registry that
    cannot be used, and a version that arrives damaged, are a warning and tried again with growing waits;
    an alias or a name that does not exist is a NotFound.
    """
    if parse_reference(reference).alias is None:
        raise NotFound(f"{reference!r} cannot move, so there is nothing to watch; give NAME@ALIAS")
    root, number, wait_s = Path(dest).absolute(), 0, every_s
    while True:
        try:
            record = client.resolve(reference)
            if record.number != number:
                directory = _placed(client, record, root)
                number = record.number
                _forget(root, keep)
                yield Change(record, directory)
            wait_s = every_s
        except (StoreUnusable, ArtifactCorrupt) as exc:
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            log.warning("%s stays as it is, next look in %.0f s: %s", root / CURRENT, wait_s, exc)
        sleep(wait_s)


def _placed(client: Puller, record: VersionRecord, root: Path) -> Path:
    """The version's directory below `root`, pulled unless it is there undamaged, and made current."""
    directory = root / str(record.number)
    if directory.is_dir() and (not _is_of(directory, record) or client.verify(directory)):
        shutil.rmtree(directory)
    if not directory.is_dir():
        client.pull(record.reference, directory)
    os.utime(directory)  # when it became current, for `_forget`
    aside = root / f".{CURRENT}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    aside.symlink_to(directory.name)
    aside.replace(root / CURRENT)
    return directory


def _is_of(directory: Path, record: VersionRecord) -> bool:
    """Whether the directory holds this very build: another registry's version may have had its number."""
    manifest = directory / "manifest.json"
    said = manifest.read_text(errors="replace") if manifest.is_file() else ""
    return record.engine_key in said and (record.manifest_digest or "") in said


def _forget(root: Path, keep: int) -> None:
    """Removes the versions that were current longest ago; never the one that is."""
    current = (root / CURRENT).resolve()
    old = [path for path in root.iterdir() if path.name.isdigit() and path.is_dir() and path != current]
    for path in sorted(old, key=lambda one: one.stat().st_mtime, reverse=True)[max(0, keep - 1) :]:
        shutil.rmtree(path)
