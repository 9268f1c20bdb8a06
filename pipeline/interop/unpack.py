"""Files out of an OCI image layout in the ModelPack format: every byte checked, nothing written elsewhere."""

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import RESERVED, check_name
from artifacts.store import tree
from pipeline.errors import ExchangeRefused
from pipeline.interop import modelpack
from pipeline.interop.content import Progress
from pipeline.interop.modelpack import FILE, FILE_SHA, FILEPATH, TITLE
from pipeline.interop.oci import chosen
from pipeline.interop.target import Layout

TYPES = (modelpack.ARTIFACT_TYPE, "application/vnd.cnai.model.manifest.v1+json")
"""Artifact types that are models; the second is the name from before the project joined CNCF."""

MODES = {".raw": "raw", ".tar": "r:", ".tar+gzip": "r:gz"}
"""How a media type ends, and how its layer is opened."""

JSON_BYTES = 16 << 20
"""Longest manifest that is read."""

COPY_BYTES = 4 << 20


def unpack(source: Layout, target: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Writes the files of one manifest into the empty directory `target`; returns the manifest.

    A blob that differs from its digest is an ArtifactCorrupt; a manifest of something else, a compression
    that is not read, or a name that leads elsewhere, is an ExchangeRefused.
    """
    where = source.path.absolute()
    manifest = _manifest(where, chosen(where, source.tag))
    layers = manifest.get("layers") or []
    done, total = 0, sum(layer["size"] for layer in layers)
    for layer in layers:
        _unpack(where, layer, target)
        done += layer["size"]
        if progress is not None:
            progress(done, total)
    for name, said in {_note(one, FILE): _note(one, FILE_SHA) for one in layers if _note(one, FILE)}.items():
        if (found := _sha256(_inside(target, name))) != said:
            raise ArtifactCorrupt(f"{where}: {name}: sha256 {found} of its joined parts, {said} expected")
    return manifest


def _manifest(where: Path, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that a descriptor of the index names, if it is of a model and its layers can be read."""
    path = _blob(where, descriptor)
    if path.stat().st_size > JSON_BYTES:
        raise ExchangeRefused(f"{path}: {path.stat().st_size:,} bytes; a manifest has at most {JSON_BYTES:,}")
    data = path.read_bytes()
    _require(path, descriptor, hashlib.sha256(data).hexdigest(), len(data))
    try:
        found = json.loads(data)
        kind, layers = found.get("artifactType"), found["layers"]
        problems = [problem for layer in layers if (problem := _refused(layer))]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ExchangeRefused(f"{path}: is no image manifest ({exc!r}); push the model again") from None
    if kind not in TYPES:
        raise ExchangeRefused(f"{path}: artifactType is {kind!r}; only ModelPack is read: {', '.join(TYPES)}")
    if problems:
        raise ExchangeRefused(f"{path}: {problems[0]}")
    manifest: dict[str, Any] = found
    return manifest


def _refused(layer: Mapping[str, Any]) -> str | None:
    """Why a layer is not read."""
    kind, size = str(layer["mediaType"]), layer["size"]
    if not isinstance(size, int) or size < 0:
        return f"layer of size {size!r}; it is a number of bytes"
    if not kind.startswith("application/vnd.cn") or _mode(kind) is None:
        return f"layer of type {kind!r}; only files (.raw), .tar and .tar+gzip of ModelPack are read"
    return None


def _mode(kind: str) -> str | None:
    return next((mode for end, mode in MODES.items() if kind.endswith(end)), None)


def _unpack(where: Path, layer: Mapping[str, Any], target: Path) -> None:
    """Writes a layer's file, or appends the part of one, or unpacks its archive once that is checked."""
    blob, mode = _blob(where, layer), _mode(layer["mediaType"])
    if mode != "raw":
        _require(blob, layer, _sha256(blob), blob.stat().st_size)
        _extract(blob, str(mode), target)
        return
    name = _note(layer, FILE) or _note(layer, FILEPATH) or _note(layer, TITLE)
    path, seen, size = _inside(target, name), hashlib.sha256(), 0
    if path.exists() and not _note(layer, FILE):
        raise ExchangeRefused(f"{where}: {name!r} is in two layers; push the model again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with blob.open("rb") as file, path.open("ab") as out:
        while chunk := file.read(COPY_BYTES):
            seen.update(chunk)
            out.write(chunk)
            size += len(chunk)
    _require(blob, layer, seen.hexdigest(), size)


def _extract(blob: Path, mode: str, target: Path) -> None:
    """Unpacks plain files and directories only, and only below `target`."""
    try:
        with tarfile.open(blob, mode) as archive:  # type: ignore[call-overload]  # the mode is one of two
            for member in archive:
                if member.isdir():
                    continue
                path = _inside(target, member.name.removeprefix("./"))
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is None or path.exists():
                    raise ExchangeRefused(f"{blob}: {member.name!r} is no plain file, or is there twice")
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened, path.open("wb") as out:
                    while chunk := opened.read(COPY_BYTES):
                        out.write(chunk)
    except (tarfile.TarError, EOFError) as exc:
        raise ExchangeRefused(f"{blob}: is no tar archive that can be read ({exc}); push it again") from None


def _inside(target: Path, name: str) -> Path:
    """The place of a file, whose name must not lead out of `target`."""
    try:
        place = target / (name if name in RESERVED else check_name(name))
    except ValueError as exc:
        raise ExchangeRefused(f"{exc}; nothing of this model is taken") from None
    return place


def _note(layer: Mapping[str, Any], key: str) -> str:
    return str((layer.get("annotations") or {}).get(key) or "")


def _blob(where: Path, descriptor: Mapping[str, Any]) -> Path:
    """The blob's file; ExchangeRefused for a digest that is none, ArtifactCorrupt where it is missing."""
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", str(descriptor.get("digest")))
    if found is None:
        raise ExchangeRefused(
            f"{where}: digest {descriptor.get('digest')!r} is no sha256; only those are read"
        )
    path = where / "blobs" / "sha256" / found[1]
    if not path.exists() or not tree.is_plain(path):
        raise ArtifactCorrupt(
            f"{path} is missing or is no plain file; the layout is incomplete, fetch it again"
        )
    return path


def _require(blob: Path, descriptor: Mapping[str, Any], found: str, size: int) -> None:
    if (f"sha256:{found}", size) != (descriptor["digest"], descriptor.get("size")):
        raise ArtifactCorrupt(
            f"{blob}: {size:,} bytes with sha256 {found}; {descriptor.get('size')} bytes with "
            f"{descriptor['digest']} expected: fetch the layout again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
