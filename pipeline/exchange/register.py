"""Registers what was built elsewhere: taken into the store as it is, published as imported and UNVERIFIED."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.client import Client
from artifacts.collection import registries
from artifacts.errors import FileChanged
from artifacts.registry.registry import Binding
from artifacts.store.local import LocalStore
from artifacts.version import IMPORTED, UNVERIFIED, Metric, Publication
from calibration.links import open_inside
from pipeline.exchange.foreign import Foreign, recognise
from pipeline.process.host import Host

BUILDER = "import"
"""Marks in an artifact's step that it was imported and cannot be rebuilt; part of the key since 0.1."""

COPY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A version that was imported."""

    name: str
    number: int
    key: str
    found: Foreign


def adopt(directory: Path, name: str, came_from: Mapping[str, Any], client: Client, host: Host) -> Adopted:
    """Copies what is in a directory into the store and registers it; the same files again are one version.

    `came_from` is kept with the version: the place without secrets, and what it says of the `licence`.
    """
    foreign = recognise(directory)
    step, files = _described(directory, foreign)
    key = digest.of_json(step)
    with client.store.lease([key], f"the import of {name}") as lease:
        registries.remember(client.store, client.registry.url)
        size = _take(directory, files, step, client.store, host)
        lease.require()  # else a sweep may have taken what is about to be named
        number = _publish(foreign, name, key, size, came_from, client)
    registries.remember_own(client.store, client.registry.url)
    return Adopted(name=name, number=number, key=key, found=foreign)


def _publish(
    foreign: Foreign, name: str, key: str, size: int, came_from: Mapping[str, Any], client: Client
) -> int:
    # the files' own card goes before what the place says
    licence = foreign.licence or came_from.get("licence")
    return client.registry.publish(
        Publication(
            name=name,
            engine_key=key,
            manifest_digest=client.store.manifest(key).digest,
            model=foreign.model,
            origin=IMPORTED,
            verdict=UNVERIFIED,
            recipe={"name": name, "format": foreign.facts["format"]},
            source={
                **({"licence": licence} if licence else {}),
                "imported": {**came_from, **({"claims": dict(foreign.claims)} if foreign.claims else {})},
            },
            lineage={foreign.kind: key},
            facts=foreign.facts,
            metrics=[Metric("size_bytes", float(size))],
        ),
        store=Binding(client.store.id, client.store.url),
    )


def _described(directory: Path, foreign: Foreign) -> tuple[dict[str, Any], dict[str, str]]:
    """The step that stands for the import, by which the same files are the same artifact; and the digests."""
    seen = digest.of_files(directory / name for name in foreign.names)
    files = {name: seen[directory / name] for name in foreign.names}
    step = {
        "kind": foreign.kind,
        "revision": 1,
        "builder": BUILDER,
        "inputs": {},
        "params": {"digest": digest.of_tree(files)},
    }
    return step, files


def _take(
    directory: Path, files: Mapping[str, str], step: Mapping[str, Any], store: LocalStore, host: Host
) -> int:
    """Makes the artifact exist; returns its bytes."""
    key = digest.of_json(step)
    needed = sum((directory / name).stat().st_size for name in files)
    with store.lock(key):
        # two imports of the same files may meet here; the second finds the first one's artifact
        if not (store.has(key) and store.intact(key)):
            # a damaged one of the same key is replaced, since the right bytes are at hand
            if store.has(key):
                store.discard(key)
            with store.write(
                key, kind=step["kind"], step=step, host=host.as_dict(), needed_bytes=needed
            ) as draft:
                for name, sha256 in files.items():
                    _copy(directory, name, draft.path / name, sha256)
        store.push(key)
    return needed


def _copy(directory: Path, name: str, target: Path, expected: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    # opened as a link that stays inside: it may have been exchanged since `recognise`
    with os.fdopen(open_inside(directory, name), "rb") as file, target.open("wb") as out:
        while chunk := file.read(COPY_BYTES):
            seen.update(chunk)
            out.write(chunk)
    # hashed again on the way: the key was made of what was read before
    if seen.hexdigest() != expected:
        raise FileChanged(f"{directory / name} changed during the import; run again when nothing writes it")
