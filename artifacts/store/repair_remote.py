"""Repairs damaged contents and manifests of a remote store from its cache or from a source."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import FileRecord, Manifest
from artifacts.store.cached import CachedStore
from artifacts.store.draft import Source
from artifacts.store.local import LocalStore
from artifacts.store.repair import Repair, StoreSource, repair
from artifacts.store.survey import Damage
from artifacts.store.survey_remote import RemoteDamage, survey_remote

NOWHERE = (
    "neither the cache nor a named source has the intact bytes: name one with --from, or discard the"
    " artifacts with --discard, so that their recipes build them again"
)


def repair_remote(
    store: CachedStore, damages: Iterable[RemoteDamage], source: Source | None = None
) -> Iterator[Repair]:
    """Repair the damages one by one; yield the outcomes. Bytes are verified before they are sent."""
    sources: dict[str, Source] = {"the cache": StoreSource(store.local)}
    if source is not None:
        sources["the other copy"] = source
    for damage in damages:
        if damage.record is not None:
            yield _content(store, damage, damage.record, sources)
            continue
        outcome = _manifest(store, damage, sources)
        yield outcome
        if outcome.repaired:  # now its files can be judged
            damages_behind = survey_remote(store.remote, damage.keys).damages
            yield from repair_remote(
                store,
                [candidate for candidate in damages_behind if isinstance(candidate, RemoteDamage)],
                source,
            )


def repair_all(
    store: LocalStore,
    damages: Iterable[Damage],
    source: Source | None = None,
    *,
    registered_id: str | None = None,
) -> Iterator[Repair]:
    """Repair the damages of a local store, or of a remote store and its cache; yield the outcomes."""
    damage_list = list(damages)
    if isinstance(store, CachedStore):
        # The remote store first: its repair takes bytes from the cache, and the cache's takes them from it.
        remote_damages = [damage for damage in damage_list if isinstance(damage, RemoteDamage)]
        yield from repair_remote(store, remote_damages, source)
    local_damages = [damage for damage in damage_list if not isinstance(damage, RemoteDamage)]
    yield from repair(store, local_damages, source, registered_id=registered_id)


def give_up(store: LocalStore, damage: Damage) -> list[str]:
    """Discard every artifact with the damaged file, so that the next run builds it again; return the keys."""
    for key in damage.keys:
        address = key
        if isinstance(damage, RemoteDamage) and store.remote is not None:
            # Read before `discard`, which moves the manifest away.
            manifest = _manifest_or_none(store.remote, key)
            address = manifest.address if manifest else key  # the cache may have it under another name
            store.remote.discard(key)
        if store.local.path(address).is_dir():
            store.local.discard(address)
    if isinstance(damage, RemoteDamage) and damage.record is not None and store.remote is not None:
        store.remote.drop(damage.record.sha256)
    return list(damage.keys)


def _content(
    store: CachedStore, damage: RemoteDamage, record: FileRecord, sources: Mapping[str, Source]
) -> Repair:
    with tempfile.TemporaryDirectory(dir=_temporary_root(store)) as folder:
        for name, source in sources.items():
            # The sources verify what they fetch, so that a damaged copy never replaces the store's.
            if source.fetch(record, Path(folder, "right")):
                store.remote.replace(record, Path(folder, "right"))
                return Repair(damage=damage, repaired=True, how=f"{store.url} has it from {name}")
    return Repair(damage=damage, repaired=False, how=NOWHERE)


def _manifest(store: CachedStore, damage: RemoteDamage, sources: Mapping[str, Source]) -> Repair:
    (key,) = damage.keys
    for name, source in sources.items():
        if (manifest := _manifest_or_none(source, key)) is not None:
            store.remote.restore(key, manifest)
            return Repair(damage=damage, repaired=True, how=f"{store.url} has it from {name}")
    return Repair(damage=damage, repaired=False, how=NOWHERE)


def _manifest_or_none(source: Source, key: str) -> Manifest | None:
    try:
        return source.manifest(key)
    except (NotFound, ArtifactCorrupt):
        return None


def _temporary_root(store: CachedStore) -> Path:
    folder = store.root / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
