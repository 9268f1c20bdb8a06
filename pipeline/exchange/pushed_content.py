"""The part of a version that is pushed: its engine as pulled, or the checkpoint it was built from."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artifacts.client import Client
from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import Manifest
from artifacts.registry.remarks import Remarks
from artifacts.store import scratch
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from artifacts.trust.licence import UNSTATED
from artifacts.version import VersionRecord
from pipeline.errors import ExchangeRefused
from pipeline.sources.snapshot import PAPERS, wanted

Part = Literal["engine", "checkpoint"]

CHECKPOINTS = ("quantized_checkpoint", "source")
"""Kinds of artifacts in Hugging Face layout; a version that is not quantized has only its source."""

BESIDE = frozenset({"hf_quant_config.json"})
"""Files of a checkpoint that loaders read besides those of every model."""

COPY_BYTES = 4 << 20

IMPORT_COPIES = 2
"""How often an import has its bytes on disk at once: as they came, and in the store."""

Progress = Callable[[int, int], None]
"""Receives bytes done and bytes in total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One artifact of a version."""

    record: VersionRecord
    part: Part
    remarks: Remarks
    """What others said of the version."""
    manifest: Manifest
    """Of the artifact that holds the part."""

    @property
    def licence(self) -> str | None:
        """The source model's licence as its card names it, where that is known."""
        return licence_id(self.record.source.get("licence"))


def licence_id(stated: Any) -> str | None:
    """A licence as one SPDX expression: said alone, as `id` beside its texts, or as a list to choose from.

    None where none is stated: `other` without a name is stated, NOASSERTION is not.
    """
    identifiers = stated.get("id") if isinstance(stated, Mapping) else stated
    every = identifiers if isinstance(identifiers, list | tuple) else [identifiers]
    names = dict.fromkeys(name.strip() for name in every if isinstance(name, str))
    # a card's list is a choice for whoever uses the model, not a sum of conditions
    return " OR ".join(name for name in names if name not in ("", UNSTATED)) or None


def content(record: VersionRecord, part: Part, client: Client) -> Content:
    """The part of a version; ExchangeRefused where the version has none."""
    key: str | None = record.address
    if part == "checkpoint":
        key = next((record.lineage[kind] for kind in CHECKPOINTS if kind in record.lineage), None)
    if key is None:
        raise ExchangeRefused(
            f"{record.reference}: its lineage names no checkpoint; push its engine: --part engine"
        )
    version = (record.name, record.number)
    remarks = client.registry.remarks([version])[version]
    # a version may keep its engine at another address than its key; checkpoints have only keys
    manifest = client.manifest(record) if part == "engine" else client.store.manifest(key)
    return Content(record=record, part=part, remarks=remarks, manifest=manifest)


def write(content: Content, client: Client, target: Path, progress: Progress | None = None) -> None:
    """Writes the part's files to the new directory `target`, each byte verified on the way.

    An engine comes as `Client.pull` writes it. A checkpoint comes as loaders want it, with the papers of its
    source, without our reports.
    """
    if content.part == "engine":
        client.pull(content.record.reference, target, progress=progress)
        return
    target.mkdir()
    names = [*wanted(content.manifest.files), *sorted(BESIDE & content.manifest.files.keys())]
    copy(client, content.manifest, names, target, progress)
    # papers are wanted, not needed: the source may have been collected meanwhile
    source = content.record.lineage.get("source")
    if source and source != content.manifest.key and client.store.has(source):
        source_manifest = client.store.manifest(source)
        papers = [
            n for n in source_manifest.files if PAPERS.fullmatch(n) and n not in names and not _is_card(n)
        ]
        copy(client, source_manifest, papers, target)


def copy(
    client: Client, manifest: Manifest, names: Iterable[str], target: Path, progress: Progress | None = None
) -> None:
    """Copies files of an artifact; one that is missing or differs from its digest is an ArtifactCorrupt."""
    chosen = list(names)
    done, total = 0, sum(manifest.files[name].size for name in chosen)
    for name in chosen:
        place, seen = target / name, hashlib.sha256()
        place.parent.mkdir(parents=True, exist_ok=True)
        path = client.store.file(manifest.address, name)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{path} is missing; nothing was written, build its recipe again") from None
        with opened, place.open("wb") as out:
            while chunk := opened.read(COPY_BYTES):
                # hashed while it is copied: weights are read once
                seen.update(chunk)
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        if seen.hexdigest() != manifest.files[name].sha256:
            raise ArtifactCorrupt(
                f"{path} has sha256 {seen.hexdigest()}, not {manifest.files[name].sha256}; "
                "nothing was written, build its recipe again"
            )


def _is_card(name: str) -> bool:
    """Whether a paper is the source's model card, in whose place ours comes."""
    return name.lower().startswith("readme")


@contextmanager
def working_beside(target: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Yields an empty directory on the file system of `target`, removed at the end unless it was renamed."""
    prefix = f".{target.name}.enginery"
    with ReportFullDisk(target.parent, str(target), needed_bytes=needed_bytes) as full:
        with ReportUnwritable(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            # leftovers of killed processes; before `require`, as their bytes may be what is missing
            scratch.sweep(target.parent, prefix)
        full.require()
        with ReportUnwritable(target.parent), scratch.scratch(target.parent, prefix) as draft:
            yield draft
