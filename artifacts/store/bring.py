"""Copies a content that a store lacks from another store or from a pulled directory."""

from artifacts.address import key_of
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.store.draft import Source
from artifacts.store.local import LocalStore


def bring(store: LocalStore, address: str, source: Source) -> bool:
    """Copy a content into the store, every byte verified; False if the source does not have it.

    Other contents of its key stay. ArtifactCorrupt, and nothing is stored, if the source's copy is damaged.
    """
    try:
        manifest = source.manifest(address)
    except NotFound:
        return False
    label = f"{manifest.kind} {manifest.key[:12]}"
    with (
        store.lease([manifest.key], f"the repair of {label}"),
        store.lock(key_of(address)),
        store.local.receive(manifest, needed_bytes=manifest.size_bytes) as draft,
    ):
        present = store.local.blobs.sound(manifest.files.values())
        for name, record in manifest.files.items():
            if record.sha256 in present or not record.size:
                continue
            target = draft.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not source.fetch(record, target):
                raise ArtifactCorrupt(
                    f"{label}: {name} is missing or damaged in the source too; give another --from"
                )
    store.push(manifest.address)
    return True
