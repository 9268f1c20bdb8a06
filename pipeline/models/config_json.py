"""From a checkpoint's `config.json` to the shape of its model; one file per family; pure."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from pipeline.errors import SourceError
from pipeline.models import config_families
from pipeline.models.model_json import shortened
from pipeline.models.shape import ModelShape

Reader = Callable[[Mapping[str, Any]], ModelShape]


def families() -> list[ModuleType]:
    """Lists the families: every file of their folder."""
    names = sorted(module.name for module in iter_modules(config_families.__path__))
    return [import_module(f"{config_families.__name__}.{name}") for name in names]


def readers() -> dict[str, Reader]:
    """Supported architecture -> what reads its `config.json`."""
    return {architecture: family.read for family in families() for architecture in family.ARCHITECTURES}


def refused() -> dict[str, str]:
    """Architecture that a family knows and cannot do -> why."""
    return {name: why for family in families() for name, why in getattr(family, "REFUSED", {}).items()}


def read_shape(config: Mapping[str, Any], place: str | Path = "") -> ModelShape:
    """Reads a `config.json` as transformers 5.14 does; what no part of the program can do is a SourceError.

    `place` is the directory, or commit, that messages name before the file.
    """
    try:
        return _read_document(config)
    except SourceError as exc:
        if not place:
            raise
        raise SourceError("\n".join(f"{place}/{line}" for line in str(exc).splitlines())) from exc


def _read_document(config: Mapping[str, Any]) -> ModelShape:
    architectures, supported = config.get("architectures"), readers()
    name = (
        architectures[0]
        if isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)
        else ""
    )
    if why := refused().get(name):
        raise SourceError(f"config.json: architectures {architectures!r} is not supported: {why}")
    if name not in supported:
        stated = shortened(architectures) if "architectures" in config else "missing"
        raise SourceError(
            f"config.json: architectures is {stated}; it must be a list of one that is supported: "
            f"{', '.join(supported)}"
        )
    return supported[name](config)
