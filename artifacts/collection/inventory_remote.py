"""What a remote store holds: manifests are commits, contents are whole or in parts behind an index."""

import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from obstore.store import ObjectStore

from artifacts.collection.inventory import Artifact, Blob, Inventory, Litter, Progress, inputs_of, params_of
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import Manifest, read_manifest
from artifacts.store.objects import Meta, listed, read
from artifacts.store.remote.remote_layout import MANIFESTS, QUARANTINE

BLOBS, PROBES = "blobs", "probes"

AT_ONCE = 16
"""Manifests read at once."""

_MANIFEST = re.compile(rf"{MANIFESTS}/[0-9a-f]{{2}}/([0-9a-f]{{64}}(?:\.[0-9a-f]{{64}})?)\.json")
_BLOB = re.compile(rf"{BLOBS}/[0-9a-f]{{2}}/([0-9a-f]{{64}})(?:|(\.json)|\.parts/[^/]+)")


@dataclass(slots=True)
class Reader:
    """Reads a remote store's inventory; a manifest that did not change is read once."""

    objects: ObjectStore
    _read: dict[tuple[str, str], Manifest | str] = field(default_factory=dict)
    """Path and version of an object -> its manifest, or what is wrong with it."""

    def prepare(self, progress: Progress) -> None:
        """Read what there is, so that `inventory` has only the news to read."""
        self._manifests(listed(self.objects, MANIFESTS), progress)

    def inventory(self, now: datetime, progress: Progress) -> Inventory:
        """Everything the store holds; `now` is its own time."""
        # Contents first: one that is added from here on is no candidate, and one whose manifest was written
        # before this call is among those the manifests name.
        stored = _blobs(listed(self.objects, BLOBS), now)
        commits = listed(self.objects, MANIFESTS)
        manifests = self._manifests(commits, progress)
        artifacts, problems = {}, []
        for meta in commits:
            path, found = meta.path, manifests.get(meta.path)
            matched = _MANIFEST.fullmatch(path)
            if isinstance(found, str):
                problems.append(f"{path}: {found}; no file is removed until it is put right or deleted")
            if matched is None or found is None:
                continue
            own = Blob(size_bytes=meta.size)
            artifact = _artifact(matched[1], found, path, _age(meta, now))
            stored[path] = own
            artifacts[artifact.key] = artifact
        litter = tuple(
            Litter(kind=kind, place=meta.path, size_bytes=meta.size, age_s=_age(meta, now))
            for kind in (PROBES, QUARANTINE)
            for meta in listed(self.objects, kind)
        )
        return Inventory(artifacts=artifacts, blobs=stored, litter=litter, problems=tuple(problems))

    def _manifests(self, commits: Iterable[Meta], progress: Progress) -> dict[str, "Manifest | str"]:
        """Path -> manifest, or what is wrong with it; one removed meanwhile is left out."""
        wanted = {
            meta.path: (meta.path, f"{meta.tag} {meta.modified}")
            for meta in commits
            if _MANIFEST.fullmatch(meta.path)
        }
        new = [path for path, version in wanted.items() if version not in self._read]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number, (path, found) in enumerate(zip(new, pool.map(self._get, new), strict=True), 1):
                progress(number, len(new), "manifests")
                if found is not None:
                    self._read[wanted[path]] = found
        return {path: self._read[version] for path, version in wanted.items() if version in self._read}

    def _get(self, path: str) -> "Manifest | str | None":
        try:
            text = read(self.objects, path)
            return None if text is None else read_manifest(text.decode(errors="replace"), "its manifest")
        except ArtifactCorrupt as exc:
            return str(exc)


def _artifact(key: str, found: "Manifest | str", path: str, age_s: float) -> Artifact:
    if isinstance(found, str):
        return Artifact(key=key, kind="unreadable", inputs=(), blobs=(path,), age_s=age_s)
    return Artifact(
        key=key,
        kind=found.kind,
        inputs=inputs_of(found.step),
        blobs=(path, *dict.fromkeys(record.sha256 for record in found.files.values())),
        age_s=age_s,
        params=params_of(found.step),
        content=found.digest,
    )


def _blobs(stored: Iterable[Meta], now: datetime) -> dict[str, Blob]:
    """Digest -> content, its index before its parts: without the index they are an upload to be continued."""
    of: defaultdict[str, list[Meta]] = defaultdict(list)
    for meta in stored:
        if matched := _BLOB.fullmatch(meta.path):
            of[matched[1]].append(meta)
    return {
        sha256: Blob(
            size_bytes=sum(meta.size for meta in metas),
            age_s=min(_age(meta, now) for meta in metas),
            places=tuple(
                sorted((meta.path for meta in metas), key=lambda path: (not path.endswith(".json"), path))
            ),
        )
        for sha256, metas in of.items()
    }


def _age(meta: Meta, now: datetime) -> float:
    """Seconds since an object was written; servers tell some times to the second and others more finely."""
    return max(0.0, (now - meta.modified).total_seconds())
