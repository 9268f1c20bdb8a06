"""Which of several measurements and evaluations of one key are of the very build of the engine that is meant.

An engine that is built again need not be bit-identical: what was timed and scored then says nothing of it.
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
    """What a step that judges the engine in a store's directory says of it; nothing where no store has it."""
    manifest = directory / MANIFEST
    return {ENGINE: json.loads(manifest.read_text())["digest"]} if manifest.is_file() else {}


def find_judgement(store: LocalStore, kind: str, key: str, engine: str | None, since: datetime) -> str | None:
    """Address of the judgement of the engine with that digest, built `since` then; None where none is of it.

    Earlier versions wrote no digest down: what is younger than the engine is of it.
    """
    for address in store.contents(key):
        build = _engine_of(store, address, kind)
        if build == engine or (build is None and store.manifest(address).created_at >= since):
            return address
    return None


def _engine_of(store: LocalStore, address: str, kind: str) -> str | None:
    """Which build a judgement is of; empty of a damaged one, which is of none."""
    try:
        build = json.loads(store.file(address, JUDGEMENTS[kind]).read_text(encoding="utf-8")).get(ENGINE)
    except NotFound:
        return None
    except (ArtifactCorrupt, OSError, ValueError, AttributeError):
        return ""
    return None if build is None else str(build)
