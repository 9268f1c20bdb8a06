"""Pulled versions: copies a version into a directory, verified, and verifies such a directory."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from artifacts import digest
from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import MANIFEST, VERSION, Manifest, read_manifest, seal, unseal
from artifacts.store import disk, scratch, tree
from artifacts.store.cached import CachedStore
from artifacts.store.disk import ReportFullDisk, ReportUnwritable, refuse_taken
from artifacts.store.local import LocalStore
from artifacts.trust import papers
from artifacts.trust.papers import LaterFields, PulledVersion
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature
from artifacts.version import VersionRecord

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A version to pull, with its manifest, signatures and attestations."""

    record: VersionRecord
    manifest: Manifest
    signatures: list[Signature]
    attestations: list[Attestation]


def place(parcel: Parcel, store: LocalStore, target: Path, progress: Progress | None) -> None:
    """Copy the version to `target`, which appears atomically, after every byte was verified.

    DestinationTaken for a `target` that is not empty, ArtifactCorrupt for a damaged file in the store. Files
    of an interrupted call are kept beside `target` and reused.
    """
    refuse_taken(target)
    manifest, staging = parcel.manifest, target.with_name(f".{target.name}.fetch")
    # An interrupted pull has some of the bytes already.
    needed = manifest.size_bytes - disk.allocated_bytes(staging)
    full = ReportFullDisk(
        target.parent, parcel.record.reference, needed_bytes=needed, instead="pull to another directory"
    )
    with full, ReportUnwritable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Now, not after hours of copying.
        full.require()
        with scratch.resumable(staging) as draft:
            # Straight into the draft: a pull need not fill the cache on the way.
            if isinstance(store, CachedStore) and not store.local.intact(manifest.address):
                store.bring(manifest, draft, progress)
            else:
                try:
                    _copy(store.path(manifest.address), draft, manifest, progress)
                except ArtifactCorrupt:
                    # What is there may be of the damaged file: the next attempt starts with none of it.
                    shutil.rmtree(draft)
                    raise
            _finish(parcel, draft, target)


def require_published(reference: str, problems: list[str]) -> None:
    """Raise an ArtifactCorrupt that lists the problems of a version or pulled directory, if there are any."""
    if problems:
        raise ArtifactCorrupt(
            "\n".join([f"{reference} is not as published:", *(f"  {problem}" for problem in problems)])
        )


def verify_pulled(
    directory: Path, extra_names: Collection[str] = (), digests: tree.Digests = digest.of_files
) -> list[str]:
    """Every problem of a pulled directory; reads every byte and needs neither store nor registry.

    `extra_names` are allowed in the directory although the manifest does not list them; `digests` may cache
    the digests of unchanged files.
    """
    texts = {}
    for name in (VERSION, MANIFEST):
        if not (directory / name).is_file():
            return [f"{name}: missing; {directory} is not a pulled version, or lost it"]
        texts[name] = (directory / name).read_bytes().decode(errors="replace")
    try:
        manifest = read_manifest(texts[MANIFEST], MANIFEST)
        version = cast("PulledVersion", unseal(texts[VERSION], VERSION))
    except ArtifactCorrupt as exc:
        return [str(exc)]
    problems = tree.problems(
        directory, manifest.files, extra_names={*papers.extra_names(version), *extra_names}, digests=digests
    )
    # Both files are sealed, but each could come from another pull.
    if _sealed_by(version) != (manifest.key, manifest.digest, manifest.caches):
        return [*problems, f"{VERSION}: is of engine {version['key']}; {MANIFEST} is of {manifest.key}"]
    return [*problems, *papers.problems(directory, manifest, version)]


def _finish(parcel: Parcel, draft: Path, target: Path) -> None:
    """Add manifest, version record, signatures and licences to the draft; then rename it to `target`."""
    record, manifest = parcel.record, parcel.manifest
    (draft / MANIFEST).write_text(manifest.to_text())
    recorded = papers.accompany(draft, record, manifest, parcel.signatures, parcel.attestations)
    (draft / VERSION).write_text(seal({**_version(record, manifest), papers.RECORDED: recorded}))
    # On disk before the rename: after a crash, a directory with the target's name is whole.
    tree.sync_all(draft)
    # Again: during the copying, another process may have filled the target.
    refuse_taken(target)
    draft.rename(target)


def _version(record: VersionRecord, manifest: Manifest) -> PulledVersion:
    caches: LaterFields = {} if manifest.caches is None else {"caches": manifest.caches}
    return {
        "name": record.name,
        "number": record.number,
        "key": record.engine_key,
        "manifest_digest": manifest.digest,
        **caches,
        "published_at": record.published_at.isoformat(),
        "facts": record.facts,
    }


def _sealed_by(version: PulledVersion) -> tuple[str, str, str | None]:
    """Key and digests of the manifest that a version was pulled with; 0.1 recorded no caches."""
    return version["key"], version["manifest_digest"], version.get("caches")


def _copy(source: Path, draft: Path, manifest: Manifest, progress: Progress | None) -> None:
    """Copy the artifact's files into the draft; bytes that an interrupted copy left are verified and kept."""
    for name, path in tree.list_files(draft).items():
        if name not in manifest.files:
            path.unlink()
    done = 0
    for name, record in manifest.files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256 = ""
        # First resume after the bytes that are there; if the digest then differs, copy from the start.
        for offset in dict.fromkeys((_resume_offset(target, record.size), 0)):
            hasher = hashlib.sha256()
            for size in _copy_file(source, name, target, offset, hasher):
                if progress is not None:
                    progress(done + size, manifest.size_bytes)
            sha256 = hasher.hexdigest()
            if sha256 == record.sha256:
                break
        else:
            raise ArtifactCorrupt(_damage_message(source, name, f"has sha256 {sha256}, not {record.sha256}"))
        done += record.size


def _resume_offset(target: Path, size: int) -> int:
    """Number of bytes that an interrupted copy left; 0 where they are more than the file has."""
    num_bytes = target.stat().st_size if target.is_file() else 0
    return num_bytes if num_bytes <= size else 0


def _copy_file(source: Path, name: str, target: Path, offset: int, hasher: "Hash") -> Iterator[int]:
    """Copy the bytes from `offset` on; yield the number of bytes hashed so far, from the first byte on."""
    try:
        source_file = (source / name).open("rb")
    except FileNotFoundError:
        raise ArtifactCorrupt(_damage_message(source, name, "is missing")) from None
    if not target.is_file():
        target.touch()
    with source_file, target.open("r+b") as out:
        # The second attempt drops what the first one kept.
        if out.seek(0, os.SEEK_END) != offset:
            out.truncate(offset)
        # The kept bytes are hashed too: the digest is of the whole file.
        out.seek(0)
        while chunk := out.read(CHUNK_BYTES):
            hasher.update(chunk)
            yield out.tell()
        source_file.seek(offset)
        while chunk := source_file.read(CHUNK_BYTES):
            hasher.update(chunk)
            out.write(chunk)
            yield out.tell()


def _damage_message(source: Path, name: str, damage: str) -> str:
    return (
        f"{source / name} {damage}; nothing was pulled: repair the store (enginery store repair --all "
        "--from STORE), or build its recipe again"
    )
