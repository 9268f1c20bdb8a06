"""Right bytes sent in the place of damaged ones in a remote store: from the cache, or from another store."""

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
    "neither the cache nor another store that was named has the right bytes: give one with --from, or give up"
    " what has it with --discard, so that its recipe builds it again"
)


def repair_remote(
    store: CachedStore, damages: Iterable[RemoteDamage], source: Source | None = None
) -> Iterator[Repair]:
    """Repair one damage after the other; yields what became of each. Bytes are verified before they go."""
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
    """Repair what is damaged in a store, and of a remote one there and in its cache; yields one by one."""
    damage_list = list(damages)
    if isinstance(store, CachedStore):
        remote_damages = [damage for damage in damage_list if isinstance(damage, RemoteDamage)]
        yield from repair_remote(store, remote_damages, source)
    local_damages = [damage for damage in damage_list if not isinstance(damage, RemoteDamage)]
    yield from repair(store, local_damages, source, registered_id=registered_id)


def give_up(store: LocalStore, damage: Damage) -> list[str]:
    """Set aside every artifact that has a damaged file, so that the next run builds it again; their keys."""
    for key in damage.keys:
        address = key
        if isinstance(damage, RemoteDamage) and store.remote is not None:
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
