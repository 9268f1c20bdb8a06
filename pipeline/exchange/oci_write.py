"""A version in an OCI image layout on disk, in the ModelPack format.

A file that is longer than registries take is several layers, `NAME.part-00001-of-00003` and so on, which
`cat` joins. Nothing of the moment or the machine goes in: a version has one manifest digest, wherever it is
written.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from artifacts import digest
from artifacts.client import Client
from artifacts.errors import DestinationTaken
from artifacts.store import tree
from artifacts.store.lock import alone
from pipeline.errors import ExchangeRefused
from pipeline.exchange import modelpack
from pipeline.exchange.modelpack import FILE, FILE_SHA, PART, TAGGED
from pipeline.exchange.pushed_content import Content, Progress, working_beside, write
from pipeline.exchange.target import Layout
from pipeline.models.model_json import parse_json

LAYOUT, INDEX = "oci-layout", "index.json"

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

LAYER_BYTES = 8 << 30
"""Longest layer; registries refuse more than 10 GB."""

COPY_BYTES = 4 << 20

JSON_BYTES = 16 << 20
"""Longest index or manifest that is read."""


def write_layout(
    content: Content,
    client: Client,
    target: Layout,
    progress: Progress | None = None,
    *,
    layer_bytes: int = LAYER_BYTES,
) -> str:
    """Adds the part to the layout, which is made where there is none; returns the manifest's digest.

    Blobs that are there already are shared. The index is written last, at once. A tag of something else is a
    DestinationTaken.
    """
    where, tag = target.path.absolute(), target.tag or default_tag(content)
    # for its refusals, before the long copy; read again under the lock
    _index(where)
    with working_beside(where, content.manifest.size_bytes) as draft:
        write(content, client, draft / "files", progress)
        blobs = draft / "blobs"
        blobs.mkdir()
        files = tree.list_files(draft / "files").items()
        layers = [layer for name, path in files for layer in _layers(name, path, blobs, layer_bytes)]
        layers.sort(key=modelpack.order)
        config = _blob(_json(modelpack.config_of(content, layers)), blobs, modelpack.CONFIG_TYPE)
        about = modelpack.manifest_of(content, config, layers)
        manifest = _blob(_json(about), blobs, modelpack.MANIFEST_TYPE)
        tagged = manifest | {"artifactType": modelpack.ARTIFACT_TYPE, "annotations": {TAGGED: tag}}
        tree.sync_all(blobs)
        _commit(where, draft, tagged)
    return str(manifest["digest"])


def default_tag(content: Content) -> str:
    """`NAME-NUMBER` in the letters of a tag."""
    # TAG takes 128 characters and no '.' or '-' in front; 100 leaves room for the number
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", content.record.name).strip(".-") or "model"
    return f"{name[:100]}-{content.record.number}"


def read_index(where: Path) -> list[dict[str, Any]]:
    """Descriptors in a layout's index; ExchangeRefused unless the directory is an OCI image layout."""
    if not (where / LAYOUT).is_file() or not (where / INDEX).is_file():
        raise ExchangeRefused(
            f"{where} is not an OCI image layout (no {LAYOUT} and {INDEX}); give its directory"
        )
    if (size := (where / INDEX).stat().st_size) > JSON_BYTES:
        raise ExchangeRefused(f"{where / INDEX}: {size:,} bytes; an index has at most {JSON_BYTES:,}")
    manifests = parse_json((where / INDEX).read_bytes(), str(where / INDEX)).get("manifests")
    if not isinstance(manifests, list) or not all(map(_is_descriptor, manifests)):
        raise ExchangeRefused(
            f"{where / INDEX}: manifests is not a list of descriptors; write the layout again"
        )
    return manifests


def _is_descriptor(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("annotations") or {}, dict)


def _index(where: Path) -> list[dict[str, Any]]:
    """The index to add to, as it is now; empty for a directory that is absent or empty."""
    if not where.is_symlink() and (not where.exists() or (where.is_dir() and not any(where.iterdir()))):
        return []
    try:
        return read_index(where)
    except ExchangeRefused:
        raise DestinationTaken(
            f"{where} is not empty and not an OCI image layout; give a new directory, or a layout"
        ) from None


def _layers(name: str, path: Path, blobs: Path, layer_bytes: int) -> list[dict[str, Any]]:
    """Makes blobs of a file, which is gone then; returns their descriptors."""
    size, whole = path.stat().st_size, digest.of_file(path)
    if size <= layer_bytes:
        path.replace(blobs / whole)
        return [modelpack.layer(name, whole, size)]
    starts, layers = range(0, size, layer_bytes), []
    with path.open("rb") as file:
        for number, start in enumerate(starts, 1):
            length = min(layer_bytes, size - start)
            # zero-padded: layers are sorted by name, and readers join parts in that order
            part = f"{name}.part-{number:05d}-of-{len(starts):05d}"
            about = {FILE: name, FILE_SHA: whole, PART: f"{number}/{len(starts)}"}
            layers.append(modelpack.layer(part, _piece(file, length, blobs), length, about))
    # its bytes are in the parts now; the next file's parts need the space
    path.unlink()
    return layers


def _piece(file: BinaryIO, length: int, blobs: Path) -> str:
    """Makes a blob of the next bytes of a file; returns its digest."""
    # the name is the digest, which is known after the last byte
    draft, seen, remaining = blobs / "draft", hashlib.sha256(), length
    with draft.open("wb") as out:
        while chunk := file.read(min(COPY_BYTES, remaining)):
            seen.update(chunk)
            out.write(chunk)
            remaining -= len(chunk)
    draft.replace(blobs / seen.hexdigest())
    return seen.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


def _blob(data: bytes, blobs: Path, media_type: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    (blobs / sha256).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(data)}


def _commit(where: Path, draft: Path, tagged: dict[str, Any]) -> None:
    """Moves new blobs into the layout, then names the manifest in its index."""
    home, tag = where / "blobs" / "sha256", tagged["annotations"][TAGGED]
    _create_layout(where, draft / "layout")
    home.mkdir(parents=True, exist_ok=True)
    with alone(home):  # two would lose one's line of the index
        index = read_index(where)
        for entry in index:
            # the same tag with the same digest is a push that is repeated
            if _tag(entry) == tag and entry.get("digest") != tagged["digest"]:
                raise DestinationTaken(
                    f"{where} has {tag!r} already, as {entry.get('digest')}; give another tag: oci:DIR:TAG"
                )
        # blobs first, and synced: an index must never name one that a crash can lose
        for blob in (draft / "blobs").iterdir():
            blob.replace(home / blob.name)
        tree.sync(home)
        written = _write_index(draft, [*(entry for entry in index if _tag(entry) != tag), tagged])
        tree.sync(written)
        written.replace(where / INDEX)
        tree.sync(where)


def _create_layout(where: Path, draft: Path) -> None:
    """Creates an empty layout where there is none, at once: a process killed later leaves a valid layout."""
    if (where / INDEX).exists():
        return
    (draft / "blobs" / "sha256").mkdir(parents=True)
    (draft / LAYOUT).write_text('{"imageLayoutVersion": "1.0.0"}')
    _write_index(draft, [])
    tree.sync_all(draft)
    try:
        draft.rename(where)
    except OSError:
        if not (where / INDEX).exists():  # no other process created it meanwhile
            raise


def _write_index(directory: Path, manifests: list[dict[str, Any]]) -> Path:
    """Writes the index of these manifests; returns its file."""
    written = directory / INDEX
    written.write_bytes(_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}))
    return written


def _tag(descriptor: dict[str, Any]) -> str | None:
    tag: str | None = (descriptor.get("annotations") or {}).get(TAGGED)
    return tag


def chosen(where: Path, tag: str | None) -> dict[str, Any]:
    """The descriptor that a tag names, or the only one; ExchangeRefused with the tags where there is none."""
    index = read_index(where)
    tags = [_tag(entry) for entry in index]
    matching = [entry for entry, name in zip(index, tags, strict=True) if tag in (None, name)]
    if len(matching) != 1:
        raise ExchangeRefused(
            f"{where} has {len(matching)} manifests{f' of tag {tag}' if tag else ''}; name one by its tag,"
            " oci:DIR:TAG; "
            f"tags there: {', '.join(name for name in tags if name) or 'none'}"
        )
    return matching[0]
