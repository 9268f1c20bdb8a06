"""The inventory of a remote store: manifests are commits, contents are whole or in parts with an index."""

import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from obstore.store import ObjectStore

from artifacts.byte_progress import ItemProgress
from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter, inputs_of, params_of
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import Manifest, read_manifest
from artifacts.store.objects import Meta, list_objects, read
from artifacts.store.remote.remote_layout import MANIFESTS, QUARANTINE

BLOBS, PROBES = "blobs", "probes"

AT_ONCE = 16
"""Manifests read at once."""

_MANIFEST = re.compile(rf"{MANIFESTS}/[0-9a-f]{{2}}/([0-9a-f]{{64}}(?:\.[0-9a-f]{{64}})?)\.json")
_BLOB = re.compile(rf"{BLOBS}/[0-9a-f]{{2}}/([0-9a-f]{{64}})(?:|(\.json)|\.parts/[^/]+)")


@dataclass(slots=True)
class Reader:
    """Reads a remote store's inventory; an unchanged manifest is read once."""

    objects: ObjectStore
    _read: dict[tuple[str, str], Manifest | str] = field(default_factory=dict)
    """Path and version of an object -> its manifest, or its problem."""

    def prepare(self, progress: ItemProgress) -> None:
        """Read all manifests, so that `inventory`, which others wait for, reads only new ones."""
        self._manifests(list_objects(self.objects, MANIFESTS), progress)

    def inventory(self, now: datetime, progress: ItemProgress) -> Inventory:
        """Everything the store holds; `now` is its own time."""
        # Contents are listed before manifests. A content added after this line is no candidate for removal,
        # and a content whose manifest was committed before this line is named by a manifest below.
        stored = _blobs(list_objects(self.objects, BLOBS), now)
        commits = list_objects(self.objects, MANIFESTS)
        manifests = self._manifests(commits, progress)
        artifacts, problems = {}, []
        for meta in commits:
            path, manifest = meta.path, manifests.get(meta.path)
            matched = _MANIFEST.fullmatch(path)
            if isinstance(manifest, str):
                problems.append(f"{path}: {manifest}; no file is removed until it is put right or deleted")
            # Removed since the listing, or an object that is no manifest.
            if matched is None or manifest is None:
                continue
            commit = Blob(size_bytes=meta.size)
            artifact = _artifact(matched[1], manifest, path, _age(meta, now))
            stored[path] = commit
            artifacts[artifact.key] = artifact
        litter = tuple(
            Litter(kind=kind, place=meta.path, size_bytes=meta.size, age_s=_age(meta, now))
            for kind in (PROBES, QUARANTINE)
            for meta in list_objects(self.objects, kind)
        )
        return Inventory(artifacts=artifacts, blobs=stored, litter=litter, problems=tuple(problems))

    def _manifests(self, commits: Iterable[Meta], progress: ItemProgress) -> dict[str, "Manifest | str"]:
        """Path -> manifest, or its problem; manifests removed meanwhile are left out."""
        versions = {
            # Tag and time: some servers have no tags, and times have a resolution of one second.
            meta.path: (meta.path, f"{meta.tag} {meta.modified}")
            for meta in commits
            if _MANIFEST.fullmatch(meta.path)
        }
        new = [path for path, version in versions.items() if version not in self._read]
        # Requests wait for the server, not for this process.
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number, (path, manifest) in enumerate(zip(new, pool.map(self._get, new), strict=True), 1):
                progress(number, len(new), "manifests")
                if manifest is not None:
                    self._read[versions[path]] = manifest
        return {path: self._read[version] for path, version in versions.items() if version in self._read}

    def _get(self, path: str) -> "Manifest | str | None":
        try:
            text = read(self.objects, path)
            return None if text is None else read_manifest(text.decode(errors="replace"), "its manifest")
        except ArtifactCorrupt as exc:
            return str(exc)


def _artifact(key: str, manifest: "Manifest | str", path: str, age_s: float) -> Artifact:
    if isinstance(manifest, str):
        return Artifact(key=key, kind="unreadable", inputs=(), blobs=(path,), age_s=age_s)
    return Artifact(
        key=key,
        kind=manifest.kind,
        inputs=inputs_of(manifest.step),
        blobs=(path, *dict.fromkeys(record.sha256 for record in manifest.files.values())),
        age_s=age_s,
        params=params_of(manifest.step),
        content=manifest.digest,
    )


def _blobs(stored: Iterable[Meta], now: datetime) -> dict[str, Blob]:
    """Digest -> content; the index is removed before its parts, which then are an interrupted upload."""
    objects_of: defaultdict[str, list[Meta]] = defaultdict(list)
    for meta in stored:
        if matched := _BLOB.fullmatch(meta.path):
            objects_of[matched[1]].append(meta)
    return {
        sha256: Blob(
            size_bytes=sum(meta.size for meta in metas),
            age_s=min(_age(meta, now) for meta in metas),
            places=tuple(
                sorted((meta.path for meta in metas), key=lambda path: (not path.endswith(".json"), path))
            ),
        )
        for sha256, metas in objects_of.items()
    }


def _age(meta: Meta, now: datetime) -> float:
    """Seconds since an object was written, never negative: servers round some times to the second."""
    return max(0.0, (now - meta.modified).total_seconds())
