"""Drafts: artifacts that are being written, until they are complete and durable."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import MANIFEST, FileRecord, Manifest, digests_of
from artifacts.store import tree
from artifacts.store.blobs import Blobs


class Source(Protocol):
    """Another copy of artifacts: a store or a pulled directory."""

    def fetch(self, record: FileRecord, target: Path) -> bool:
        """Write a content to a new file; False where the source lacks it. The caller verifies it."""

    def manifest(self, key: str) -> Manifest:
        """An artifact's manifest; NotFound where there is none."""


@dataclass(slots=True)
class Draft:
    """An artifact being written."""

    path: Path
    """Empty directory; its files at the end of the block are the artifact."""
    peak_memory_bytes: int | None = None
    """Peak memory of the process that fills it, where it was measured."""
    digests: dict[str, str] = field(default_factory=dict)
    """Name -> sha256 of files that were hashed while they were written; other files are read again."""
    progress: Progress | None = None
    """Receives the progress of a push after the commit."""
    read_ns: int = 0
    """Time just before the files were read for their digests, ns since the epoch."""
    started: float = field(default_factory=time.monotonic)

    @property
    def aside(self) -> Path:
        """A free name beside the directory, for short-lived links."""
        return self.path.parent / "aside"

    def described(self, key: str, *, kind: str, step: Mapping[str, Any], host: Mapping[str, Any]) -> Manifest:
        """Make the files read-only; return their manifest."""
        files = self.settle()
        digest, caches = digests_of({name: record.sha256 for name, record in files.items()})
        return Manifest(
            version=2,
            kind=kind,
            key=key,
            digest=digest,
            caches=caches,
            step=dict(step),
            files=files,
            host=dict(host),
            seconds=time.monotonic() - self.started,
            peak_memory_bytes=self.peak_memory_bytes,
            created_at=datetime.now(UTC),
        )

    def settle(self) -> dict[str, FileRecord]:
        """Make the files read-only; return name -> size and digest."""
        # Taken before the read: a later change then has a later time than `read_ns`.
        self.read_ns = time.time_ns()
        return tree.settle(self.path, self.digests)

    def complete(self, manifest: Manifest, blobs: Blobs) -> None:
        """Link missing files whose contents are in the store; ArtifactCorrupt for any other difference."""
        present = self.settle()
        absent = {name: record for name, record in manifest.files.items() if name not in present}
        shared = blobs.sound(absent.values())
        for name, record in absent.items():
            if record.sha256 in shared and blobs.place(record.sha256, self.path / name, self.aside):
                present[name] = record
            # No source has to fetch an empty file, so it is created even where nothing can be linked.
            elif record == EMPTY:
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).touch(tree.READ_ONLY)
                present[name] = record
        differing = _differing_names(present, manifest.files)
        if differing:
            raise ArtifactCorrupt(
                f"{manifest.kind} {manifest.key[:12]}: {', '.join(differing)}: not as in its manifest;"
                " nothing was stored, fetch it again"
            )

    def seal(self, manifest: Manifest, blobs: Blobs) -> None:
        """Write the manifest, link contents that the store already has, and wait until all is on disk."""
        manifest_path = self.path / MANIFEST
        manifest_path.write_text(manifest.to_text())
        manifest_path.chmod(tree.READ_ONLY)
        # Links before the sync, so that what is synced is what the artifact will consist of.
        blobs.draw(self.path, manifest.files, self.aside)
        tree.sync_all(self.path)


EMPTY = FileRecord(size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""The record of an empty file, which is created instead of fetched or linked."""


def _differing_names(actual: Mapping[str, FileRecord], expected: Mapping[str, FileRecord]) -> list[str]:
    return sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))
