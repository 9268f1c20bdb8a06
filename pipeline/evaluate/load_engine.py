"""Finds the runner of an engine: that of the backend that built it."""

import json
from importlib import import_module
from pathlib import Path
from typing import cast

from pipeline import engines
from pipeline.backend.loaded_engine import Runner
from pipeline.errors import SourceError


def runner_of(directory: Path) -> Runner:
    """The runner of the backend that built an engine; SourceError for a directory that holds none."""
    file = directory / "engine.json"
    if not file.is_file():
        raise SourceError(f"{directory} holds no engine (no engine.json); give the output of an engine step")
    backend = engines.backend(json.loads(file.read_text())["backend"])
    return cast("Runner", import_module(backend.runner))
