"""Files out of an OCI image layout in the ModelPack format: all is known of them before a byte is written.

Sizes are compared with what is there, names with what a model has; then every byte is checked, and nothing
is written elsewhere.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import ArtifactCorrupt
from artifacts.manifest import RESERVED, check_names
from artifacts.store import tree
from pipeline.errors import ExchangeRefused
from pipeline.exchange import archive, modelpack
from pipeline.exchange.foreign import expected
from pipeline.exchange.modelpack import FILE, FILE_SHA, FILEPATH, TITLE
from pipeline.exchange.oci_write import JSON_BYTES, chosen
from pipeline.exchange.pushed_content import Progress
from pipeline.exchange.target import Layout
from pipeline.models.model_json import parse_json, shortened

TYPES = (modelpack.ARTIFACT_TYPE, "application/vnd.cnai.model.manifest.v1+json")
"""Artifact types that are models; the second is the name from before the project joined CNCF."""

RAW, ARCHIVES = ".raw", {".tar": False, ".tar+gzip": True}
"""How media types end: of files as they are, and of archives, with whether they are compressed."""

COPY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a manifest of a layout holds, before any of it is unpacked."""

    where: Path
    manifest: dict[str, Any]
    files: Mapping[str, int]
    """Name -> bytes of the files that are taken."""

    @property
    def size_bytes(self) -> int:
        """Bytes of them all."""
        return sum(self.files.values())


def survey(source: Layout) -> Packed:
    """Reads what one manifest would unpack to, and writes nothing.

    A blob that differs from what is declared is an ArtifactCorrupt. A manifest of something else, a name that
    leads elsewhere, a compression that is not read, or more than a model has, is an ExchangeRefused.
    """
    where = source.path.absolute()
    manifest = _manifest(where, chosen(where, source.tag))
    sizes: dict[str, int] = {}
    for layer in manifest["layers"]:
        for name, size in _layer_files(where, layer).items():
            # only the parts of a file that was cut may share its name; their bytes add up
            if name in sizes and (_compressed(layer) is not None or not _annotation(layer, FILE)):
                raise ExchangeRefused(f"{where}: {name!r} is in two layers; push the model again")
            sizes[name] = sizes.get(name, 0) + size
    if len(sizes) > archive.MAX_FILES:
        raise ExchangeRefused(f"{where}: {len(sizes):,} files; no model has more than {archive.MAX_FILES:,}")
    try:
        check_names(name for name in sizes if name not in RESERVED)
    except ValueError as exc:
        raise ExchangeRefused(f"{where}: {exc}; nothing was imported") from None
    names = expected(sizes, str(where))
    return Packed(where=where, manifest=manifest, files={name: sizes[name] for name in names})


def unpack(packed: Packed, target: Path, progress: Progress | None = None) -> None:
    """Writes the files into the empty directory `target`; a blob with other bytes is an ArtifactCorrupt."""
    done, layers = 0, packed.manifest["layers"]
    for layer in layers:
        _unpack(packed, layer, target)
        done += layer["size"]
        if progress is not None:
            progress(done, sum(each["size"] for each in layers))
    # one entry per file, however many parts it had: each part names the digest of the whole
    for name, expected_sha in {
        _annotation(descriptor, FILE): _annotation(descriptor, FILE_SHA)
        for descriptor in layers
        if _annotation(descriptor, FILE)
    }.items():
        if name in packed.files and (actual_sha := _sha256(target / name)) != expected_sha:
            raise ArtifactCorrupt(
                f"{packed.where}: {name}: sha256 {actual_sha} of its joined parts, {expected_sha} expected"
            )


def _manifest(where: Path, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that a descriptor of the index names, if it is of a model and its layers can be read."""
    path = _blob(where, descriptor)
    # before it is read into memory
    if path.stat().st_size > JSON_BYTES:
        raise ExchangeRefused(f"{path}: {path.stat().st_size:,} bytes; a manifest has at most {JSON_BYTES:,}")
    data = path.read_bytes()
    _require(path, descriptor, hashlib.sha256(data).hexdigest(), len(data))
    document = parse_json(data, str(path))
    kind, layers = document.get("artifactType"), document.get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(item, dict) and "mediaType" in item for item in layers
    ):
        raise ExchangeRefused(f"{path}: layers is not a list of layers; push the model again")
    problems = [problem for layer in layers if (problem := _layer_problem(layer))]
    if kind not in TYPES:
        raise ExchangeRefused(f"{path}: artifactType is {kind!r}; only ModelPack is read: {', '.join(TYPES)}")
    if problems:
        raise ExchangeRefused(f"{path}: {problems[0]}")
    if len(layers) > archive.MAX_FILES:
        raise ExchangeRefused(f"{path}: {len(layers):,} layers; no model has more than {archive.MAX_FILES:,}")
    manifest: dict[str, Any] = document
    return manifest


def _layer_problem(layer: Mapping[str, Any]) -> str | None:
    """Why a layer is not read."""
    kind, size = str(layer["mediaType"]), layer.get("size")
    # `true` is an int to isinstance
    if type(size) is not int or not 0 <= size < 1 << 63:
        return f"layer of size {shortened(size)}; it is a number of bytes"
    if not kind.startswith("application/vnd.cn") or not kind.endswith((RAW, *ARCHIVES)):
        return f"layer of type {kind!r}; only files (.raw), .tar and .tar+gzip of ModelPack are read"
    if not isinstance(layer.get("annotations") or {}, dict):
        return f"layer with annotations {shortened(layer['annotations'])}; they are an object"
    return None


def _compressed(layer: Mapping[str, Any]) -> bool | None:
    """Whether a layer is a compressed archive; None for a file."""
    return next((packed for end, packed in ARCHIVES.items() if layer["mediaType"].endswith(end)), None)


def _layer_files(where: Path, layer: Mapping[str, Any]) -> dict[str, int]:
    """Name -> bytes of what a layer holds; its blob must have the size that is declared."""
    blob, compressed = _blob(where, layer), _compressed(layer)
    if (size := blob.stat().st_size) != layer["size"]:
        raise ArtifactCorrupt(
            f"{blob}: {size:,} bytes; {layer['size']:,} are declared: fetch the layout again"
        )
    if compressed is None:
        return {_name(layer): size}
    # an archive's headers are read next; of a plain file the bytes are hashed while they are copied
    _require(blob, layer, _sha256(blob), size)
    return archive.members(blob, compressed=compressed)


def _unpack(packed: Packed, layer: Mapping[str, Any], target: Path) -> None:
    """Writes a layer's file, or appends the part of one, or unpacks its archive."""
    blob, compressed = _blob(packed.where, layer), _compressed(layer)

    def place(name: str) -> Path | None:
        return target / name if name in packed.files else None

    if compressed is not None:
        archive.extract(blob, place, compressed=compressed)
        return
    path, seen, size = place(_name(layer)), hashlib.sha256(), 0
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with blob.open("rb") as file, path.open("ab") as out:  # "ab": parts follow one another
        # never far beyond what was declared, even where the blob grew since the survey
        while size <= layer["size"] and (chunk := file.read(COPY_BYTES)):
            seen.update(chunk)
            out.write(chunk)
            size += len(chunk)
    _require(blob, layer, seen.hexdigest(), size)


def _name(layer: Mapping[str, Any]) -> str:
    # FILE first: of a part, the other two name the part
    return _annotation(layer, FILE) or _annotation(layer, FILEPATH) or _annotation(layer, TITLE)


def _annotation(layer: Mapping[str, Any], key: str) -> str:
    return str((layer.get("annotations") or {}).get(key) or "")


def _blob(where: Path, descriptor: Mapping[str, Any]) -> Path:
    """The blob's file; ExchangeRefused for a digest that is none, ArtifactCorrupt where it is missing."""
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", str(descriptor.get("digest")))
    if match is None:
        raise ExchangeRefused(
            f"{where}: digest {descriptor.get('digest')!r} is not a sha256 digest; only those are read"
        )
    path = where / "blobs" / "sha256" / match[1]
    if not path.exists() or not tree.is_plain(path):
        raise ArtifactCorrupt(
            f"{path} is missing or not a plain file; the layout is incomplete, fetch it again"
        )
    return path


def _require(blob: Path, descriptor: Mapping[str, Any], actual_sha: str, size: int) -> None:
    if (f"sha256:{actual_sha}", size) != (descriptor["digest"], descriptor.get("size")):
        raise ArtifactCorrupt(
            f"{blob}: {size:,} bytes with sha256 {actual_sha}; {descriptor.get('size')} bytes with "
            f"{descriptor['digest']} expected: fetch the layout again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
