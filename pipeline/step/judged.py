"""Measurements and evaluations of one key, each of one build of the engine.

An engine that is built again need not be bit-identical: figures of the earlier build are not figures of it.
"""

import json
from datetime import datetime
from pathlib import Path

from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST
from artifacts.store.local import LocalStore

JUDGEMENTS = {"evaluation": "scores.json", "measurement": "measurement.json"}
"""Kind of each step that judges an engine -> its file that names the build."""

ENGINE = "engine_digest"
"""Field of that file: the digest that the engine's manifest states."""


def build_of(directory: Path) -> dict[str, str]:
    """The field that names the build of the engine in a directory; empty where no store wrote it."""
    manifest = directory / MANIFEST
    return {ENGINE: json.loads(manifest.read_text())["digest"]} if manifest.is_file() else {}


def find_judgement(store: LocalStore, kind: str, key: str, engine: str | None, since: datetime) -> str | None:
    """Address of the judgement of the engine with that digest, built `since` then; None where none is of it.

    Earlier versions wrote no digest down: what is younger than the engine is of it.
    """
    for address in store.contents(key):
        build = _engine_of(store, address, kind)
        # `build` is None for an earlier version's file, and "" for a damaged one, which matches no engine
        if build == engine or (build is None and store.manifest(address).created_at >= since):
            return address
    return None


def _engine_of(store: LocalStore, address: str, kind: str) -> str | None:
    """Digest of the build that a judgement is of; None where it names none, empty where it is damaged."""
    try:
        build = json.loads(store.file(address, JUDGEMENTS[kind]).read_text(encoding="utf-8")).get(ENGINE)
    except NotFound:
        return None
    except (ArtifactCorrupt, OSError, ValueError, AttributeError):
        # not None: an unreadable judgement must not pass for one of an earlier version
        return ""
    return None if build is None else str(build)
