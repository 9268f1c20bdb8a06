"""Files of a published engine; reading one that is missing or broken is an ExportRefused."""

import json
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ExportRefused

SCORING = "scoring"
"""Directory of a twin that only the gate scores, below an engine that cannot return context logits."""


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise ExportRefused(f"{file}: missing; the engine is incomplete, build its recipe again") from None
    except ValueError as exc:
        raise ExportRefused(f"{file}: is not JSON ({exc}); build its recipe again") from None
    if not isinstance(value, dict):
        raise ExportRefused(f"{file}: holds no JSON object; build its recipe again")
    return value


def read_mapping(file: Path) -> dict[str, Any]:
    """Reads a YAML mapping."""
    try:
        value = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ExportRefused(f"{file}: missing; the engine is incomplete, build its recipe again") from None
    if not isinstance(value, dict):
        raise ExportRefused(f"{file}: holds no options; build its recipe again")
    return value
