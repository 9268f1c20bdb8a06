"""Reads what a card says from the registry and the store."""

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.registry.registry import Registry
from artifacts.store.local import LocalStore
from artifacts.version import VersionRecord
from pipeline.pages.card.card_content import STORED, Card, concerns


def card_of(record: VersionRecord, registry: Registry, store: LocalStore | None) -> Card:
    """Everything known about a version; sizes only of what the store has."""
    version = (record.name, record.number)
    stored, problems = _stored(record, store)
    return Card(
        record=record,
        remarks=registry.remarks([version])[version],
        events=tuple(event for event in registry.events(record.name) if concerns(event, record.number)),
        stored=stored,
        problems=problems,
    )


def _stored(record: VersionRecord, store: LocalStore | None) -> tuple[dict[str, int], tuple[str, ...]]:
    """Bytes of the artifacts that the store has, and what it said of damaged ones."""
    stored: dict[str, int] = {}
    problems = []
    keys = {**{kind: record.lineage.get(kind) for kind in STORED}, "engine": record.address}
    for kind, key in keys.items():
        if store is None or key is None:
            continue
        try:
            stored[kind] = store.manifest(key).size_bytes
        except NotFound:
            continue  # a registry is often read where its store is not
        except ArtifactCorrupt:
            problems.append(f"the manifest of its {STORED[kind]} is damaged in this server's store")
    return stored, tuple(problems)
