"""Surveys a remote store: reads every object and finds damaged ones with the artifacts that have them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from artifacts.byte_progress import Progress
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import FileRecord, Manifest
from artifacts.store.remote import remote_layout
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.survey import Damage, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDamage(Damage):
    """A damaged content or manifest of a remote store; its path is relative to the store."""

    having: tuple[str, ...]
    """Artifacts that have it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Artifacts that have it."""
        return self.having

    def __str__(self) -> str:
        return self.what  # it already contains the object's URL

    @property
    def is_manifest(self) -> bool:
        """Whether it is a manifest, so that the files of its artifact are unknown."""
        return self.record is None


def survey_remote(
    remote: RemoteStore, keys: Iterable[str] | None = None, progress: Progress | None = None
) -> Survey:
    """Read all contents of the artifacts, or of all artifacts of the store, each once, over the network."""
    names = remote.keys() if keys is None else [remote.named(key) for key in keys]
    damages: list[Damage] = []
    records: dict[str, FileRecord] = {}
    holders: dict[str, list[str]] = {}
    for key, manifest in in_order(partial(_read, remote, key) for key in names):
        if isinstance(manifest, str):
            damages.append(
                RemoteDamage(
                    paths=(remote_layout.manifest_path(key),), what=manifest, record=None, having=(key,)
                )
            )
        elif manifest is not None:
            for record in manifest.files.values():
                records[record.sha256] = record
                holders.setdefault(record.sha256, []).append(key)
    for sha256, problem in remote.differing(records, progress):
        path, having_keys = remote_layout.blob_path(sha256), tuple(dict.fromkeys(holders[sha256]))
        damages.append(RemoteDamage(paths=(path,), what=problem, record=records[sha256], having=having_keys))
    return Survey(
        damages=tuple(damages),
        artifacts=len(names),
        files=len(records),
        size_bytes=sum(record.size for record in records.values()),
    )


def _read(remote: RemoteStore, key: str) -> tuple[str, Manifest | str | None]:
    """Key, and manifest or its problem; None for a manifest removed meanwhile."""
    try:
        return key, remote.manifest(key)
    except NotFound:
        return key, None
    except ArtifactCorrupt as exc:
        return key, str(exc)
