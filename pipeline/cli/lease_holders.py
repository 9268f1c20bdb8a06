"""Which published versions have a damaged file."""

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.cli.app import App

if TYPE_CHECKING:
    from artifacts.store.survey import Damage

SHOWN = 12
"""Versions that are named of a damaged file; the others are counted."""


def versions(app: App, keys: set[str]) -> dict[str, list[str]]:
    """What the store calls an artifact -> versions that have it, and as what."""
    from artifacts.address import is_same, key_of  # with the store

    holders: dict[str, list[str]] = {}
    contents = {name: _content(app, name) for name in keys}
    for record in app.registry.every():
        parts = {key: kind for kind, key in record.lineage.items()} | {record.engine_key: "engine"}
        for name, content in contents.items():
            part = parts.get(key_of(name))
            if part and (part != "engine" or is_same(record.manifest_digest, content)):
                holders.setdefault(name, []).append(f"{record.reference} ({part})")
    return holders


def _content(app: App, name: str) -> str | None:
    """Digest of the content of that name, if one copy of its manifest can still be read."""
    from artifacts.errors import ArtifactCorrupt, NotFound  # pydantic: not for --help

    store = app.client.store
    for place in (store.local, store.remote):
        with suppress(ArtifactCorrupt, NotFound):
            if place is not None:
                return place.manifest(name).digest
    return None


def named(damage: "Damage", having: dict[str, list[str]]) -> str:
    """The versions that have a damaged file, in words."""
    versions = sorted({version for key in damage.keys for version in having.get(key, [])})
    if not versions:
        return "no published version has it"
    more = f" and {len(versions) - SHOWN} more" if len(versions) > SHOWN else ""
    return f"in {', '.join(versions[:SHOWN])}{more}"
