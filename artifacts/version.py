"""Values of the registry: publications, versions, events and references."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from artifacts.address import address
from artifacts.errors import NotFound

BUILT, IMPORTED = "built", "imported"
"""Origins of a version: built from a recipe, or imported."""

PASS, UNVERIFIED = "PASS", "UNVERIFIED"

PUBLISHED_AS = {BUILT: PASS, IMPORTED: UNVERIFIED}
"""Origin -> the only verdict for publication: PASS is always the result of our own gate."""

KINDS = (
    "published",
    "alias_moved",
    "rolled_back",
    "refused",
    "waived",
    "policy_set",
    "signed",
    "collected",
    "rebuild_needed",
)
"""Kinds of events."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number, with its confidence interval where one was estimated."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high) if x is not None):
            raise ValueError(f"metric {self.name!r} is not finite: {self.value} [{self.low}, {self.high}]")


class Gpu(TypedDict, total=False):
    """One GPU that an engine was built on."""

    name: str
    driver: str
    sm: int
    """Compute capability times ten."""


class Facts(TypedDict, total=False):
    """The registered facts of a version: requirements on the host, and what the engine was built for."""

    backend: str
    format: str
    dtype: str
    kv_cache: str
    target: str
    """GPU type it was built for; `host` is the machine that built it."""
    tp: int
    pp: int
    world_size: int
    max_batch_size: int
    max_seq_len: int
    device: str
    cpu: str
    """Vector set that it needs."""
    gpus: list[Gpu]
    """One per rank."""
    sm: int
    toolchain: dict[str, str]
    """Program -> version."""
    weight_bytes_per_rank: int | list[int]
    memory_bytes_per_rank: int | list[int]
    """Weights and KV cache; versions published before caches were counted have only the weights."""
    scored: str
    sequences_begin_with: str
    measured: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The argument of `Registry.publish`: a version to add."""

    name: str
    engine_key: str
    recipe: Mapping[str, Any]
    """The recipe in full."""
    verdict: str
    """PASS, or UNVERIFIED for an imported engine; others are not published."""
    facts: Mapping[str, Any]
    """Requirements on the host, and what the engine was built for: backend, format, tp, pp, limits."""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """Kind of every step -> key of its artifact."""
    checks: Sequence[Mapping[str, Any]] = ()
    """The gate's comparisons, one by one."""
    metrics: Sequence[Metric] = ()
    alias: str | None = None
    """Alias to move to the version, unless it was moved to this version before."""
    model: str = ""
    """Hugging Face repository or directory of the source checkpoint."""
    manifest_digest: str | None = None
    """Digest in the engine's manifest."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the model: `repo`, `revision`, `licence`."""
    origin: str = BUILT


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One published version."""

    name: str
    number: int
    """Counts from 1, without gaps, per name."""
    engine_key: str
    recipe: dict[str, Any]
    verdict: str
    facts: dict[str, Any]
    lineage: dict[str, str]
    checks: list[dict[str, Any]]
    metrics: tuple[Metric, ...]
    aliases: tuple[str, ...]
    """Aliases that pointed at it when the record was read."""
    published_at: datetime
    """UTC."""
    published_by: str = "unknown"
    """`user@host`; `unknown` for versions published under schema 1."""
    model: str = ""
    manifest_digest: str | None = None
    """None for versions published under schema 1."""
    source: dict[str, Any] = field(default_factory=dict)
    origin: str = BUILT
    collected_at: datetime | None = None
    """When gc removed the files; None while they exist."""

    @property
    def reference(self) -> str:
        """`NAME:NUMBER`."""
        return f"{self.name}:{self.number}"

    @property
    def address(self) -> str:
        """Address of the published content; the key alone where its digest was not recorded."""
        return address(self.engine_key, self.manifest_digest)

    def metric(self, name: str) -> float | None:
        """Value of a metric; None where it was not measured."""
        return next((metric.value for metric in self.metrics if metric.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        collected = self.collected_at.isoformat() if self.collected_at else None
        return {
            **asdict(self),
            "published_at": self.published_at.isoformat(),
            "collected_at": collected,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the registry's append-only log."""

    seq: int
    at: datetime
    name: str
    """Empty for events that concern all names, such as a policy."""
    kind: str
    """One of `KINDS`."""
    by: str
    """`user@host`."""
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """`NAME`, `NAME@ALIAS` or `NAME:NUMBER`, taken apart."""

    name: str
    alias: str | None = None
    number: int | None = None


def parse_reference(text: str) -> Reference:
    """The parts of a reference; NotFound, with the three forms, for any other text."""
    # Nine digits at most: the number stays within the database's integers.
    match = re.fullmatch(r"([^@:\s]+)(?:@([^@:\s]+)|:(\d{1,9}))?", text)
    if match is None:
        raise NotFound(f"{text!r} is not a reference to a version; write NAME, NAME@ALIAS or NAME:NUMBER")
    name, alias, number = match.groups()
    return Reference(name, alias, int(number) if number else None)
