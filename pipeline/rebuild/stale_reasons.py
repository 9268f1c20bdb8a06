"""Why a published version no longer matches the world around it; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from artifacts.finding.needs import loaders
from artifacts.registry.policy import SKEW
from artifacts.version import Facts, VersionRecord
from pipeline.process.gpus import TARGETS
from pipeline.rebuild.compatibility import CPU_ISAS
from pipeline.rebuild.host_pools import Pool

Kind = Literal["upstream", "toolchain", "driver", "hardware", "gate", "inputs", "collected"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that changed since the version was built."""

    kind: Kind
    text: str
    loads: bool = True
    """False where it cannot be loaded any more; true where what was measured no longer describes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What versions are compared with."""

    now: datetime
    pools: tuple[Pool, ...]
    heads: Mapping[str, str]
    """Hub repository -> its newest commit, for those that could be asked."""
    gate_max_age: timedelta
    """A verdict older than this is no longer relied on."""


def reasons(record: VersionRecord, judged_at: datetime, world: World) -> tuple[Reason, ...]:
    """Every reason why a version no longer matches, worst first; empty while it matches.

    `judged_at` is when its engine was evaluated.
    """
    every = [
        *_collected(record),
        *(reason for pool in world.pools if serves(pool, record) for reason in _at(pool, record)),
        *_upstream(record, world.heads),
        *_gate(judged_at, world),
    ]
    # False sorts before True: what cannot be loaded comes first
    return tuple(sorted(every, key=lambda reason: reason.loads))


def serves(pool: Pool, record: VersionRecord) -> bool:
    """Whether the version is, or would be, served from the pool."""
    if pool.aliases:
        return bool(set(pool.aliases) & set(record.aliases))
    return (pool.gpu is None) == on_cpu(record) and (pool.gpu is None or _built_for(pool.gpu, record))


def on_cpu(record: VersionRecord) -> bool:
    """Whether the engine runs without a GPU."""
    return str(record.facts.get("device", "cpu")).partition(":")[0] == "cpu"


def _built_for(gpu: str, record: VersionRecord) -> bool:
    # words, so that `h20` is not found in `H200`
    words = " ".join(built["name"] for built in record.facts.get("gpus", [])).lower().split()
    return gpu == record.facts.get("target") or gpu in words


def _at(pool: Pool, record: VersionRecord) -> Iterable[Reason]:
    if on_cpu(record):
        yield from _cpu(pool, record)
    else:
        yield from _gpu(pool, record)
        yield from _driver(pool, record)
    yield from _tools(pool, record)


def _cpu(pool: Pool, record: VersionRecord) -> Iterable[Reason]:
    needs = record.facts.get("cpu")
    if pool.cpu is None or needs not in CPU_ISAS:
        return
    if CPU_ISAS.index(needs) > CPU_ISAS.index(pool.cpu):
        text = f"compiled for CPUs with {needs}; pool {pool.name!r} has {pool.cpu}"
        yield Reason("hardware", text, loads=False)


def _gpu(pool: Pool, record: VersionRecord) -> Iterable[Reason]:
    """Compiled kernels run on GPUs of their own compute capability only."""
    built = record.facts.get("sm")
    have = TARGETS[pool.gpu].sm if pool.gpu else None
    if built is not None and built != have:
        offer = f"has {pool.gpu}, sm_{have}" if pool.gpu else "has no GPUs"
        yield Reason("hardware", f"built for sm_{built}; pool {pool.name!r} {offer}", loads=False)


def _driver(pool: Pool, record: VersionRecord) -> Iterable[Reason]:
    """A driver of an older branch may lack what the engine's CUDA asks for; another one was not measured."""
    built = {str(gpu["driver"]) for gpu in record.facts.get("gpus", []) if gpu.get("driver")}
    if pool.driver is None or not built or pool.driver in built:
        return
    # older only if older than every driver that it was built with
    older = _branch(pool.driver) < min(map(_branch, built))
    consequence = (
        "older, so it may not load" if older else "its speed and tuned kernels were measured with another"
    )
    text = (
        f"built with driver {', '.join(sorted(built))}; pool {pool.name!r} has {pool.driver}: {consequence}"
    )
    yield Reason("driver", text, loads=not older)


def _branch(driver: str) -> int:
    first = driver.partition(".")[0]
    return int(first) if first.isdigit() else 0  # no number: older than all


def _tools(pool: Pool, record: VersionRecord) -> Iterable[Reason]:
    """TensorRT-LLM and TensorRT load what their very own version built; so does AOTInductor's run time."""
    built = record.facts.get("toolchain", {})
    for name in loaders(cast("Facts", record.facts)):
        versions = pool.versions(name)
        if versions and name in built and built[name] not in versions:
            text = f"built with {name} {built[name]}; pool {pool.name!r} has {', '.join(versions)}"
            yield Reason("toolchain", text, loads=False)


def _upstream(record: VersionRecord, heads: Mapping[str, str]) -> Iterable[Reason]:
    repo, revision = record.source.get("repo"), record.source.get("revision")
    head = heads.get(str(repo))
    # a hub that could not be asked is no reason
    if repo and head and head != revision:
        yield Reason("upstream", f"{repo} is at commit {head[:12]}; built from {str(revision)[:12]}")


def _gate(judged_at: datetime, world: World) -> Iterable[Reason]:
    age = world.now - judged_at
    # clocks of two hosts may differ by SKEW
    if age < -SKEW:
        text = f"its accuracy was judged on {judged_at:%Y-%m-%d}, which is in the future: a clock is wrong"
        yield Reason("gate", text)
    if age > world.gate_max_age:
        limit = world.gate_max_age.days
        yield Reason(
            "gate", f"its accuracy was judged {age.days} days ago; a verdict is valid for {limit} days"
        )


def _collected(record: VersionRecord) -> Iterable[Reason]:
    if record.collected_at is not None:
        text = f"gc removed its files on {record.collected_at:%Y-%m-%d}"
        yield Reason("collected", text, loads=False)
