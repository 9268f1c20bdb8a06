"""The consumer's view: find, resolve, pull and verify published versions.

client = Client()
engine = client.pull("demo/fp8_tp2@prod", "engine")
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from artifacts import disk, papers, scratch, tree
from artifacts.cached import CachedStore
from artifacts.database import open_database
from artifacts.disk import FullDiskSaid, UnwritableSaid
from artifacts.draft import Progress
from artifacts.endorsement import Endorsements
from artifacts.errors import ArtifactCorrupt, DestinationTaken
from artifacts.manifest import MANIFEST, VERSION, Manifest, read_manifest, seal, unseal
from artifacts.opening import DEFAULT_STORE
from artifacts.provenance import Attestation
from artifacts.pulling import pulling
from artifacts.registry import Match, Registry, VersionRecord, open_registry
from artifacts.signing import Signature, require_published, require_signed
from artifacts.store import LocalStore, open_store
from artifacts.watch import Change, watch

CHUNK_BYTES = 4 << 20


class Client:
    """Published versions of one store and registry."""

    trusted_keys: Mapping[str, str] | None = None
    """Id -> public key, PEM: only what one of them signed is pulled. None: anything is."""

    def __init__(self, store_url: str | None = None, registry_url: str | None = None) -> None:
        """Opens the store named, or `$ENGINERY_STORE`, or `~/.enginery`.

        The registry is the one named, or `$ENGINERY_REGISTRY`, or the one in the store.
        """
        self.store: LocalStore = open_store(store_url or os.environ.get("ENGINERY_STORE", DEFAULT_STORE))
        self._named = registry_url or os.environ.get("ENGINERY_REGISTRY")

    @property
    def _registry_url(self) -> str:
        return self._named or self.store.registry_url

    @cached_property
    def registry(self) -> Registry:
        """Names, versions and aliases."""
        return open_registry(self._registry_url)

    def find(self, *, rank: str = "speed", limit: int | None = None, **wanted: Any) -> list[Match]:
        """The first `limit` versions that suit, best first, then the others with the reasons against them."""
        return self.registry.find(rank=rank, limit=limit, **wanted)

    def resolve(self, reference: str) -> VersionRecord:
        """The version meant by `NAME@ALIAS`, `NAME:NUMBER` or `NAME` (the newest); otherwise NotFound."""
        return self.registry.resolve(reference)

    def pull(self, reference: str, dest: str | Path, *, progress: Progress | None = None) -> Path:
        """Copy a version to `dest`, which appears at once and complete, every byte verified; return its path.

        A `dest` that holds something is a DestinationTaken, a damaged file in the store an ArtifactCorrupt.
        An interrupted pull from a remote store is continued by the next one.
        """
        record = self.resolve(reference)
        with pulling(self.store, open_database(self._registry_url), record):
            return self._pull(self.resolve(record.reference), Path(dest).absolute(), progress)

    def _pull(self, record: VersionRecord, target: Path, progress: Progress | None) -> Path:
        manifest = self._trusted(record)
        _refuse_taken(target)
        staging = target.with_name(f".{target.name}.fetch")
        needed = manifest.size_bytes - disk.allocated_bytes(staging)
        what = f"{record.name}:{record.number}"
        with FullDiskSaid(target.parent, what, needed_bytes=needed) as full, UnwritableSaid(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            full.require()
            if isinstance(self.store, CachedStore) and not self.store.local.has(record.engine_key):
                with scratch.resumable(staging) as draft:
                    self.store.bring(manifest, draft, progress)
                    self._finish(draft, target, record, manifest)
            else:
                scratch.sweep(target.parent, f".{target.name}.pull")
                with scratch.scratch(target.parent, f".{target.name}.pull") as draft:
                    _copy(self.store.path(record.engine_key), draft, manifest, progress)
                    self._finish(draft, target, record, manifest)
        return target

    def _trusted(self, record: VersionRecord) -> Manifest:
        """The manifest that was published, signed by a trusted key where any are named."""
        manifest = self.store.manifest(record.engine_key)
        require_published(record, manifest)
        if self.trusted_keys is not None:
            require_signed(record, manifest, self._endorsed(manifest)[0], self.trusted_keys)
        return manifest

    def _finish(self, draft: Path, target: Path, record: VersionRecord, manifest: Manifest) -> None:
        """Adds what tells where it came from, who vouches for it and its licence; makes it appear."""
        (draft / MANIFEST).write_text(manifest.to_text())
        came = papers.accompany(draft, record, manifest, *self._endorsed(manifest))
        (draft / VERSION).write_text(seal({**_version(record, manifest), papers.RECORDED: came}))
        tree.sync_all(draft)
        _refuse_taken(target)
        draft.rename(target)

    def watch(
        self, reference: str, dest: str | Path, *, every_s: float = 30.0, keep: int = 2
    ) -> Iterator[Change]:
        """Follow `NAME@ALIAS` for ever: each version it points at, once `dest/current` is that version."""
        return watch(self, reference, dest, every_s=every_s, keep=keep)

    def require_trusted(self, reference: str | Path, keys: Mapping[str, str]) -> tuple[str, ...]:
        """The keys that vouch for a version, or for a pulled directory; none is a NotTrusted."""
        if Path(reference).is_dir():
            return papers.require_trusted(Path(reference), keys)
        record = self.resolve(str(reference))
        manifest = self.store.manifest(record.engine_key)
        return require_signed(record, manifest, self._endorsed(manifest)[0], keys)

    def _endorsed(self, manifest: Manifest) -> tuple[list[Signature], list[Attestation]]:
        kept = Endorsements(self.registry.database)
        return kept.signatures(manifest.digest), kept.attestations(manifest.key)

    def verify(self, reference: str | Path) -> list[str]:
        """Everything wrong with a version in the store, or with a pulled directory, by reading all of it."""
        pulled = Path(reference)
        if isinstance(reference, Path) or (pulled / VERSION).is_file():
            return verify_pulled(pulled)
        return self.store.verify(self.resolve(str(reference)).engine_key)


def verify_pulled(directory: Path) -> list[str]:
    """Everything wrong with a pulled directory, by reading all of it; needs neither store nor registry."""
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
    found = tree.problems(directory, manifest.files, beside=papers.beside(version))
    if (version["key"], version["manifest_digest"]) != (manifest.key, manifest.digest):
        return [*found, f"{VERSION}: is of engine {version['key']}; {MANIFEST} is of {manifest.key}"]
    return [*found, *papers.problems(directory, manifest, version)]


def _version(record: VersionRecord, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": record.name,
        "number": record.number,
        "key": record.engine_key,
        "manifest_digest": manifest.digest,
        "published_at": record.published_at.isoformat(),
        "facts": record.facts,
    }


def _refuse_taken(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise DestinationTaken(f"{target} already holds something; give a new or an empty directory")


def _copy(source: Path, draft: Path, manifest: Manifest, progress: Progress | None) -> None:
    done = 0
    for name, record in manifest.files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            opened = (source / name).open("rb")
        except FileNotFoundError:
            raise ArtifactCorrupt(_damaged(source, name, "is missing")) from None
        seen = hashlib.sha256()
        with opened, target.open("wb") as out:
            while chunk := opened.read(CHUNK_BYTES):
                seen.update(chunk)
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, manifest.size_bytes)
        if seen.hexdigest() != record.sha256:
            raise ArtifactCorrupt(
                _damaged(source, name, f"has sha256 {seen.hexdigest()}, not {record.sha256}")
            )


def _damaged(source: Path, name: str, what: str) -> str:
    return f"{source / name} {what}; nothing was pulled, build its recipe again"
