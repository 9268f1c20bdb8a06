"""Everything in a remote store read again: which objects are not what they were, and whose they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import FileRecord, Manifest
from artifacts.store.remote import remote_layout
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.survey import Damage, Progress, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDamage(Damage):
    """One damaged content, or manifest, of a remote store; its path is an object's, relative to the store."""

    having: tuple[str, ...]
    """Artifacts that have it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Artifacts that have it."""
        return self.having

    def __str__(self) -> str:
        return self.what  # which names the object with its URL

    @property
    def is_manifest(self) -> bool:
        """Whether it is a manifest, so that nobody knows what its artifact consists of."""
        return self.record is None


def survey_remote(
    remote: RemoteStore, keys: Iterable[str] | None = None, progress: Progress | None = None
) -> Survey:
    """Read all contents of the artifacts, or of all artifacts of the store, each once, over the network."""
    wanted = remote.keys() if keys is None else [remote.named(key) for key in keys]
    damages: list[Damage] = []
    records: dict[str, FileRecord] = {}
    having: dict[str, list[str]] = {}
    for key, found in in_order(partial(_read, remote, key) for key in wanted):
        if isinstance(found, str):
            damages.append(
                RemoteDamage(
                    paths=(remote_layout.manifest_path(key),), what=found, record=None, having=(key,)
                )
            )
        elif found is not None:
            for record in found.files.values():
                records[record.sha256] = record
                having.setdefault(record.sha256, []).append(key)
    for sha256, what in remote.differing(records, progress):
        path, keys_of = remote_layout.blob_path(sha256), tuple(dict.fromkeys(having[sha256]))
        damages.append(RemoteDamage(paths=(path,), what=what, record=records[sha256], having=keys_of))
    return Survey(
        damages=tuple(damages),
        artifacts=len(wanted),
        files=len(records),
        size_bytes=sum(record.size for record in records.values()),
    )


def _read(remote: RemoteStore, key: str) -> tuple[str, Manifest | str | None]:
    """Key and manifest, or what is wrong with it; None for one that was removed meanwhile."""
    try:
        return key, remote.manifest(key)
    except NotFound:
        return key, None
    except ArtifactCorrupt as exc:
        return key, str(exc)
