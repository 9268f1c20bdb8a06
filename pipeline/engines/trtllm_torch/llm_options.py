"""What each version's LLM API takes: tables shipped beside this file, `llm_options/<version>.json`, each with
its sources. Development snapshots stand for the release that follows them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key."""

    type: str
    """`bool`, `int`, `float`, `str`, `list`, `dict`, `any`, `choice`, `config` or `speculative`."""
    default: Any = None
    """The library's; None: unset, or found by the library itself."""
    status: str = "stable"
    """The library's word: `stable`, `beta`, `prototype` or `deprecated`."""
    choices: tuple[str, ...] = ()
    config: str = ""
    """Name of the nested configuration."""


Options = Mapping[str, Option]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Everything that one version takes."""

    version: str
    snapshot: str
    """What the table was read from."""
    autotuner_cache: bool
    """Whether the autotuner can keep what it found in a file."""
    options: Options
    configs: Mapping[str, Options]
    speculative: Mapping[str, Options]
    """`decoding_type` of the PyTorch backend -> the keys beside it."""


@cache
def tables() -> Mapping[str, Table]:
    """Every table, by `major.minor`, oldest first."""
    place = files(__package__).joinpath("llm_options")
    documents = [json.loads(file.read_text()) for file in place.iterdir() if file.name.endswith(".json")]
    # By number: as text, 1.10 would come before 1.2.
    return {raw["version"]: _table(raw) for raw in sorted(documents, key=lambda raw: minor(raw["version"]))}


def table_of(version: str) -> Table | None:
    """The table of a version of TensorRT-LLM, e.g. `1.2.1` or `1.3.0rc15`; None where there is none."""
    return tables().get(".".join(str(part) for part in minor(version)))


def newest() -> Table:
    """The newest version's table."""
    return list(tables().values())[-1]


def minor(version: str) -> tuple[int, int]:
    """Major and minor number; ValueError for what is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"{version!r} is no version of TensorRT-LLM; one looks like 1.2.1")
    return int(match[1]), int(match[2])


def versions_with(name: str, config: str = "") -> list[str]:
    """Versions that have a key of that name, at the top level or in a nested configuration."""
    options_by_version = {
        version: table.options if not config else table.configs.get(config, {})
        for version, table in tables().items()
    }
    return [version for version, options in options_by_version.items() if name in options]


def _table(raw: Mapping[str, Any]) -> Table:
    return Table(
        version=raw["version"],
        snapshot=raw["snapshot"],
        autotuner_cache=raw["autotuner_cache"],
        options=_options(raw["options"]),
        configs={name: _options(keys) for name, keys in raw["configs"].items()},
        speculative={name: _options(keys) for name, keys in raw["speculative"].items()},
    )


def _options(raw: Mapping[str, Mapping[str, Any]]) -> Options:
    return {
        name: Option(**{**entry, "choices": tuple(entry.get("choices", ()))}) for name, entry in raw.items()
    }
