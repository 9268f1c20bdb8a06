"""What `trtllm-build` of each TensorRT-LLM version understands; tables in `capabilities/`, one per snapshot.

A table names every option with its kind, type, choices and default, read in the sources that it names. Not
every release was at hand: a development snapshot then stands for the release that follows it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import BackendUnavailable

SNAPSHOTS = (
    "0.8.0", "0.9.0", "0.10.0", "0.11.0", "0.12.0.dev2024080600", "0.13.0.dev2024090300",
    "0.14.0.dev2024091000", "0.14.0.dev2024100800", "0.15.0.dev2024101500", "0.16.0.dev2024111900", "0.16.0",
    "0.17.0.dev2024121700", "1.2",
)  # fmt: skip
"""Every table, oldest first."""

NEWEST = SNAPSHOTS[-1]

TABLES = Path(__file__).parent / "capabilities"

VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.?(a|b|rc|dev|post)(\d+))?(?:\+.*)?")
"""A Python version, as far as TensorRT-LLM uses them."""

LAST_STAGE = (1, 3, 0)
"""Release whose candidates lost the command."""

GONE_SINCE = 22
"""Candidate of 1.3.0 whose wheel no longer requires TensorRT (metadata on the package index)."""

Type = Literal["flag", "switch", "word", "int", "text"]
"""`flag`: present or not; `switch`: the words enable and disable; `word`: one of the choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of the command."""

    name: str
    """Without the two dashes."""
    kind: Literal["cli", "plugin"]
    """`plugin`: a field of TensorRT-LLM's PluginConfig."""
    type: Type
    default: Any = None
    """The command's own; None: unset."""
    choices: tuple[str | int, ...] = ()
    """Values it takes; empty: any of the type."""
    many: bool = False
    """Takes one value or more."""
    aliases: tuple[str, ...] = ()
    deprecated: bool = False
    """Still understood, and warned of."""
    since: str
    """First snapshot of this file set that has it, without a gap up to this one."""
    removed: str | None = None
    """First later snapshot without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The option table of one version."""

    snapshot: str
    source: str
    releases: tuple[str, ...]
    """Releases, as major.minor, that the table serves."""
    options: Mapping[str, Option]
    """In the command's own order."""
    standing: str = ""
    """Why the snapshot stands for its releases; empty: it is the release."""
    version: str = ""
    """The version asked for."""

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor part of the version asked for."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    def of(self, version: str) -> "Capabilities":
        """The same table for a version that it serves."""
        return replace(self, version=version)

    @property
    def note(self) -> str | None:
        """Says which snapshot stands for the version asked for; None where it is that version's own."""
        if not self.standing or self.version == self.snapshot:
            return None
        return (
            f"engine.toolchain: the options of TensorRT-LLM {self.version} are taken from snapshot "
            f"{self.snapshot}: {self.standing}"
        )


def table(version: str) -> Capabilities:
    """The options of a probed TensorRT-LLM version; BackendUnavailable for one that has no table."""
    # Development snapshots are understood under their whole name only.
    if version in SNAPSHOTS:
        return snapshot(version)
    match = VERSION.fullmatch(version)
    if match is None:
        raise BackendUnavailable(f"{version!r} is no version of TensorRT-LLM; {_have()}")
    major, minor, patch, stage, number = match.groups()
    if _gone((int(major), int(minor), int(patch or 0)), stage, int(number or 0)):
        raise BackendUnavailable(
            f"TensorRT-LLM {version} builds no engines: trtllm-build is gone since 1.3.0rc{GONE_SINCE}; "
            f"use engine.backend trtllm_torch, or a toolchain with an older one; {_have()}"
        )
    # Other pre-releases have no table of their own, and none is guessed.
    if stage in (None, "post"):
        for name in SNAPSHOTS:
            if f"{major}.{minor}" in snapshot(name).releases:
                return snapshot(name).of(version)
    raise BackendUnavailable(f"the options of TensorRT-LLM {version} are not known; {_have()}")


@cache
def snapshot(name: str) -> Capabilities:
    """One table by its snapshot's name; FileNotFoundError for another name."""
    document = json.loads((TABLES / f"{name}.json").read_text())
    return Capabilities(
        snapshot=document["snapshot"],
        source=document["source"],
        releases=tuple(document["releases"]),
        standing=document.get("standing", ""),
        version=document["snapshot"],
        options={name: _option(name, entry) for name, entry in document["options"].items()},
    )


def releases() -> list[str]:
    """Every release that has a table, as major.minor, oldest first."""
    return [release for name in SNAPSHOTS for release in snapshot(name).releases]


def _option(name: str, entry: Mapping[str, Any]) -> Option:
    # A frozen value holds no lists.
    lists = {key: tuple(entry[key]) for key in ("choices", "aliases") if key in entry}
    return Option(**{"name": name, **entry, **lists})


def _gone(release: tuple[int, int, int], stage: str | None, number: int) -> bool:
    """Whether the version is one of those without the command."""
    if release != LAST_STAGE:
        return release > LAST_STAGE
    # Of 1.3.0 itself the earlier candidates still have it.
    return stage in (None, "post") or (stage == "rc" and number >= GONE_SINCE)


def _have() -> str:
    exact = [name for name in SNAPSHOTS if ".dev" in name]
    return f"have {', '.join(releases())}, and the snapshots {', '.join(exact)}"
