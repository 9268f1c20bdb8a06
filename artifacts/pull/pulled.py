"""A pulled version: how it comes to be in a directory, whole and verified, and what is wrong with one."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import digest
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import MANIFEST, VERSION, Manifest, read_manifest, seal, unseal
from artifacts.store import disk, scratch, tree
from artifacts.store.cached import CachedStore
from artifacts.store.disk import FullDiskSaid, UnwritableSaid, refuse_taken
from artifacts.store.draft import Progress
from artifacts.store.local import LocalStore
from artifacts.trust import papers
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature
from artifacts.version import VersionRecord

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A version to be pulled, and what comes with it."""

    record: VersionRecord
    manifest: Manifest
    signatures: list[Signature]
    attestations: list[Attestation]


def place(parcel: Parcel, store: LocalStore, target: Path, progress: Progress | None) -> None:
    """Make `target` the version, at once and complete, every byte verified.

    A `target` that holds something is a DestinationTaken, a damaged file in the store an ArtifactCorrupt.
    What came before an interruption is kept beside it and used.
    """
    refuse_taken(target)
    manifest, staging = parcel.manifest, target.with_name(f".{target.name}.fetch")
    needed = manifest.size_bytes - disk.allocated_bytes(staging)
    full = FullDiskSaid(
        target.parent, parcel.record.reference, needed_bytes=needed, instead="pull to another directory"
    )
    with full, UnwritableSaid(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        full.require()
        with scratch.resumable(staging) as draft:
            if isinstance(store, CachedStore) and not store.local.intact(manifest.address):
                store.bring(manifest, draft, progress)
            else:
                try:
                    _copy(store.path(manifest.address), draft, manifest, progress)
                except ArtifactCorrupt:
                    shutil.rmtree(draft)
                    raise
            _finish(parcel, draft, target)


def require_published(named: str, problems: list[str]) -> None:
    """Refuses a version, or a pulled directory, with which something is wrong, as an ArtifactCorrupt."""
    if problems:
        raise ArtifactCorrupt("\n".join([f"{named} is not as published:", *(f"  {one}" for one in problems)]))


def verify_pulled(
    directory: Path, beside: Collection[str] = (), digests: tree.Digests = digest.of_files
) -> list[str]:
    """Everything wrong with a pulled directory, by reading all of it; needs neither store nor registry.

    `beside` are names that may lie there although the version has no such file; `digests` may remember those
    of files that did not change.
    """
    texts = {}
    for name in (VERSION, MANIFEST):
        if not (directory / name).is_file():
            return [f"{name}: missing; {directory} is not a pulled version, or lost it"]
        texts[name] = (directory / name).read_bytes().decode(errors="replace")
    try:
        manifest = read_manifest(texts[MANIFEST], MANIFEST)
        version = unseal(texts[VERSION], VERSION)
    except ArtifactCorrupt as exc:
        return [str(exc)]
    found = tree.problems(
        directory, manifest.files, beside={*papers.beside(version), *beside}, digests=digests
    )
    if _sealed_by(version) != (manifest.key, manifest.digest, manifest.caches):
        return [*found, f"{VERSION}: is of engine {version['key']}; {MANIFEST} is of {manifest.key}"]
    return [*found, *papers.problems(directory, manifest, version)]


def _finish(parcel: Parcel, draft: Path, target: Path) -> None:
    """Adds what tells where it came from, who vouches for it and its licence; makes it appear."""
    record, manifest = parcel.record, parcel.manifest
    (draft / MANIFEST).write_text(manifest.to_text())
    came = papers.accompany(draft, record, manifest, parcel.signatures, parcel.attestations)
    (draft / VERSION).write_text(seal({**_version(record, manifest), papers.RECORDED: came}))
    tree.sync_all(draft)
    refuse_taken(target)
    draft.rename(target)


def _version(record: VersionRecord, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": record.name,
        "number": record.number,
        "key": record.engine_key,
        "manifest_digest": manifest.digest,
        **({"caches": manifest.caches} if manifest.caches is not None else {}),
        "published_at": record.published_at.isoformat(),
        "facts": record.facts,
    }


def _sealed_by(version: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key and digests of the manifest that a version came with; 0.1 knew of no caches."""
    return version["key"], version["manifest_digest"], version.get("caches")


def _copy(source: Path, draft: Path, manifest: Manifest, progress: Progress | None) -> None:
    """Make the draft's files those of the artifact; what an interrupted copy left is read, not written."""
    for name, path in tree.list_files(draft).items():
        if name not in manifest.files:
            path.unlink()
    done = 0
    for name, record in manifest.files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        found = ""
        for offset in dict.fromkeys((_left(target, record.size), 0)):
            seen = hashlib.sha256()
            for size in _copied(source, name, target, offset, seen):
                if progress is not None:
                    progress(done + size, manifest.size_bytes)
            found = seen.hexdigest()
            if found == record.sha256:
                break
        else:
            raise ArtifactCorrupt(_damaged(source, name, f"has sha256 {found}, not {record.sha256}"))
        done += record.size


def _left(target: Path, size: int) -> int:
    """Bytes of an interrupted copy that may be right."""
    left = target.stat().st_size if target.is_file() else 0
    return left if left <= size else 0


def _copied(source: Path, name: str, target: Path, offset: int, seen: "Hash") -> Iterator[int]:
    """Copy what follows `offset`; yield how many bytes are there; `seen` is fed all of them."""
    try:
        opened = (source / name).open("rb")
    except FileNotFoundError:
        raise ArtifactCorrupt(_damaged(source, name, "is missing")) from None
    if not target.is_file():
        target.touch()
    with opened, target.open("r+b") as out:
        if out.seek(0, os.SEEK_END) != offset:
            out.truncate(offset)
        out.seek(0)
        while chunk := out.read(CHUNK_BYTES):
            seen.update(chunk)
            yield out.tell()
        opened.seek(offset)
        while chunk := opened.read(CHUNK_BYTES):
            seen.update(chunk)
            out.write(chunk)
            yield out.tell()


def _damaged(source: Path, name: str, what: str) -> str:
    return (
        f"{source / name} {what}; nothing was pulled: repair the store "
        "(enginery store repair --all --from STORE), or build its recipe again"
    )
