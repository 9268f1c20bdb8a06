"""The CNCF ModelPack format: media types, the layer of a file, a model's configuration and manifest; pure.

github.com/modelpack/model-spec: an OCI image manifest whose `artifactType`, configuration and layers have the
media types below. Each layer is one file, unarchived, so that its digest is the file's.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.exchange.pushed_content import Content
from pipeline.sources.snapshot import PAPERS

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
CODE = "application/vnd.cncf.model.code.v1.raw"

FILEPATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"
TITLE = "org.opencontainers.image.title"
LICENCES = "org.opencontainers.image.licenses"
TAGGED = "org.opencontainers.image.ref.name"
FILE, FILE_SHA, PART = "enginery.file", "enginery.file.sha256", "enginery.file.part"
"""Annotations of ours on the layers of a file that was cut: its name, its digest, `1/3`."""

WEIGHTS = (".safetensors", ".engine", ".plan", ".pt2")
PROGRAMS = (".py", ".so", ".cpp", ".sh")


def layer(name: str, digest: str, size: int, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The layer that holds a file, or a part of one; `more` are annotations of ours."""
    # no owner and no time of this host: the same file is the same layer wherever it is written
    about = {"name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": size, "mtime": "1970-01-01T00:00:00Z"}
    return {
        # a part has a number behind its suffix, so that the whole file's name decides
        "mediaType": media_type_of(more[FILE] if more else name),
        "digest": f"sha256:{digest}",
        "size": size,
        "annotations": {
            TITLE: name,
            FILEPATH: name,
            METADATA: json.dumps({**about, "typeflag": ord("0")}, separators=(",", ":")),
            **(more or {}),
        },
    }


def media_type_of(name: str) -> str:
    """What a file is to a model, by its name."""
    top = name.rpartition("/")[2]
    if name.endswith(WEIGHTS):
        return WEIGHT
    if name.endswith(PROGRAMS):
        return CODE
    return DOC if PAPERS.fullmatch(top) or name.endswith((".md", ".html")) else WEIGHT_CONFIG


def order(layer: Mapping[str, Any]) -> tuple[int, str]:
    """Key to sort layers by: weights first, papers last, then by name."""
    kind = (WEIGHT, WEIGHT_CONFIG, CODE, DOC).index(layer["mediaType"])
    return kind, layer["annotations"][FILEPATH]


def config_of(content: Content, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's configuration, of the fields that its schema has."""
    record, facts = content.record, content.record.facts
    format_ = facts.get("format", "none")
    repo = record.source.get("repo")
    descriptor = {
        "createdAt": record.published_at.isoformat(),
        "name": record.name,
        "version": str(record.number),
        "sourceURL": f"https://huggingface.co/{repo}" if repo else None,
        "revision": record.source.get("revision"),
        "licenses": [content.licence] if content.licence else None,
        "description": f"{content.part} of {record.reference}, verdict {record.verdict}",
    }
    config = {
        "architecture": "transformer",
        "format": facts.get("backend") if content.part == "engine" else "safetensors",
        "precision": facts.get("dtype"),
        "quantization": format_ if isinstance(format_, str) else "mixed",
        "capabilities": {"inputTypes": ["text"], "outputTypes": ["text"]},
    }
    return {
        "descriptor": {name: value for name, value in descriptor.items() if value is not None},
        "config": {name: value for name, value in config.items() if value is not None},
        # layers are plain files, so that what is compressed and what is not have one digest
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }


def manifest_of(content: Content, config: dict[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest over the descriptors of configuration and layers."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
        "annotations": {
            "org.opencontainers.image.created": content.record.published_at.isoformat(),
            "org.opencontainers.image.title": content.record.name,
            "org.opencontainers.image.version": str(content.record.number),
            **({LICENCES: content.licence} if content.licence else {}),
            "enginery.part": content.part,
            "enginery.key": content.manifest.key,
            "enginery.manifest.digest": content.manifest.digest,
        },
    }
