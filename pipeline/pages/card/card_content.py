"""The content of a card, apart from its layout: a version, its standing, its history, its bytes; pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

from artifacts.registry import remarks
from artifacts.registry.remarks import Notice, Remarks
from artifacts.registry.telling import describe_event
from artifacts.version import Event, VersionRecord
from pipeline.engines import find_backend
from pipeline.units import NONE, moment, number, size

Pairs = list[tuple[str, str]]
"""What, and its value in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A version and all that is known about it."""

    record: VersionRecord
    remarks: Remarks
    """What others said of it, as of when it was read."""
    events: tuple[Event, ...] = ()
    """Those of this version, oldest first."""
    stored: Mapping[str, int] = field(default_factory=dict)
    """Kind of step -> bytes of its artifact, of those that the store has."""
    problems: tuple[str, ...] = ()
    """What the store said of artifacts that it could not read."""


TONES = ("bad", "warn", "info")


def concerns(event: Event, number: int) -> bool:
    """Whether an event of a name is about the version of that number."""
    # moves of an alias have the versions they left and reached, publications a number
    return number in (event.detail.get(key) for key in ("number", "was", "now"))


def notices(card: Card) -> list[Notice]:
    """Everything in the way of using the version without a second look, worst first."""
    stated = remarks.notices(card.record, card.remarks)
    damage = [Notice(tone="bad", text=problem) for problem in card.problems]
    every = [*stated, *damage, *_explained(card)]
    return sorted(every, key=lambda notice: TONES.index(notice.tone))


def _explained(card: Card) -> Iterator[Notice]:
    """Waivers that are over, and how the figures came to be."""
    # open waivers are notices already; one that is over still explains how it was promoted
    for waiver in card.remarks.waivers:
        if not waiver.is_open(card.remarks.now):
            yield Notice(tone="info", text=f"over: {waiver}")
    facts = card.record.facts
    if facts.get("scored"):
        twin = f"the scores are of the engine's twin in {facts['scored']}/, built to be scored"
        yield Notice(tone="info", text=twin)
    if facts.get("sequences_begin_with"):
        begin = f"every scored sequence begins with {facts['sequences_begin_with']}, itself not scored"
        yield Notice(tone="info", text=begin)
    if facts.get("measured"):
        yield Notice(tone="info", text=f"the speed was measured {facts['measured']}")


def summary(record: VersionRecord) -> str:
    """The version in half a line: `int4_awq · aoti · tp 2, pp 1 · cpu`."""
    facts = record.facts
    ranks = ", ".join(f"{axis} {facts[axis]}" for axis in ("tp", "pp") if axis in facts)
    parts = (facts.get("format"), facts.get("backend"), ranks, hardware(facts))
    return " · ".join(str(part) for part in parts if part)


def hardware(facts: Mapping[str, Any]) -> str:
    """What it was built and measured on."""
    names = list(dict.fromkeys(gpu["name"] for gpu in facts.get("gpus", ())))
    # a version without the fact counts as one of the CPU
    on_cpu = str(facts.get("device", "cpu")).startswith("cpu")
    if names and not on_cpu:
        return " and ".join(names)
    return f"CPU {facts['cpu']}" if facts.get("cpu") else ""


HARDWARE = ("cpu", "cores")
"""Entries of `toolchain` that say where it was built, not with what."""


def built_for(record: VersionRecord) -> Pairs:
    """What a host must have, and the limits that requests must keep."""
    facts = record.facts
    # the CPU and its cores are no tools to install
    toolchain = ", ".join(
        f"{name} {version}" for name, version in facts.get("toolchain", {}).items() if name not in HARDWARE
    )
    drivers = ", ".join(dict.fromkeys(str(g["driver"]) for g in facts.get("gpus", ()) if g.get("driver")))
    memory = facts.get("memory_bytes_per_rank", ())
    # some versions have one number instead of a list by rank
    memory = [memory] if isinstance(memory, int) else memory
    rows = (
        ("engine backend", facts.get("backend")),
        ("format", facts.get("format")),
        ("dtype, KV cache", ", ".join(str(facts[x]) for x in ("dtype", "kv_cache") if facts.get(x))),
        ("ranks", f"{facts.get('world_size', '?')} (tp {facts.get('tp', '?')}, pp {facts.get('pp', '?')})"),
        ("hardware", hardware(facts)),
        ("compute capability", f"sm_{facts['sm']}" if facts.get("sm") else None),
        ("driver", f"{drivers} or later" if drivers else None),
        ("toolchain", toolchain),
        ("memory per rank", f"{size(max(memory))}: weights and KV cache" if memory else None),
        ("requests at once", facts.get("max_batch_size")),
        ("tokens per request", facts.get("max_seq_len")),
    )
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def origin(card: Card) -> Pairs:
    """Its origin, and its signatures."""
    record, source = card.record, card.record.source
    licence = source.get("licence")
    rows = (
        ("source checkpoint", record.model or source.get("repo") or source.get("path")),
        ("revision", source.get("revision")),
        # a text, or an object with the id beside the texts
        ("licence of the source", licence.get("id") if isinstance(licence, Mapping) else licence),
        ("published", f"{moment(record.published_at)} by {record.published_by}"),
        ("origin", record.origin),
        ("engine key", record.engine_key),
        ("manifest digest", record.manifest_digest),
    )
    return [(label, str(value)) for label, value in rows if value]


NAMES = {
    "kl": "token KL divergence, nats",
    "top1_agreement": "top-1 agreement",
    "perplexity_ratio": "perplexity ratio",
    "baseline_perplexity": "perplexity of the source",
    "engine_perplexity": "perplexity of the engine",
}
"""Accuracy metrics, in the order of the card."""


def accuracy(record: VersionRecord) -> list[dict[str, str]]:
    """A row per accuracy metric: value, interval, limit, outcome."""
    checks = {check["metric"]: check for check in record.checks}
    rows = []
    # a gate may limit metrics that have no words here; they come last
    for name in (*NAMES, *(extra for extra in checks if extra not in NAMES)):
        match = next((metric for metric in record.metrics if metric.name == name), None)
        if match is None and name not in checks:
            continue
        check = checks.get(name, {})
        # the check has the value as it was judged, where the metric itself was not registered
        values = (match.value, match.low, match.high) if match else _values(check)
        rows.append(
            {
                "metric": NAMES.get(name, name),
                "value": number(values[0]),
                "interval": NONE if None in values[1:] else f"{number(values[1])} to {number(values[2])}",
                "limit": number(check.get("limit")),
                "outcome": str(check.get("outcome", "not limited")),
            }
        )
    return rows


def _values(check: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    return check.get("value"), check.get("low"), check.get("high")


SPEEDS = {
    "tokens_per_s": "tokens/s",
    "tokens_per_s_per_user": "tokens/s per user",
    "ttft_ms_p50": "TTFT p50, ms",
    "ttft_ms_p95": "TTFT p95, ms",
    "itl_ms_p50": "ITL p50, ms",
    "itl_ms_p95": "ITL p95, ms",
}
"""Figures of one batch size; TTFT: time to first token, ITL: time between tokens."""


def speeds(record: VersionRecord) -> list[dict[str, float]]:
    """One row per measured batch size, from the metrics named `figure@batch`, smallest batch first."""
    rows: dict[int, dict[str, float]] = {}
    for metric in record.metrics:
        figure, at, batch = metric.name.partition("@")
        # only a number behind "@" is a batch size
        if at and batch.isdecimal():
            rows.setdefault(int(batch), {"batch_size": int(batch)})[figure] = metric.value
    return [rows[batch] for batch in sorted(rows)]


STORED = {
    "source": "source checkpoint",
    "quantized_checkpoint": "quantized checkpoint",
    "engine": "engine",
}
"""Artifacts whose sizes the card compares."""


def on_disk(card: Card) -> list[tuple[str, int]]:
    """What is compared on disk, in bytes; the engine's size is known without a store."""
    stored = dict(card.stored)
    recorded = card.record.metric("size_bytes")
    # the registered size goes first: it leaves out a twin that no server loads
    if recorded is not None:
        stored["engine"] = int(recorded)
    return [(STORED[kind], stored[kind]) for kind in STORED if kind in stored]


def in_memory(record: VersionRecord) -> list[tuple[str, int, int]]:
    """Rank, bytes of its weights, and bytes of its KV cache."""
    weights: Sequence[int] = record.facts.get("weight_bytes_per_rank", ())
    whole: Sequence[int] = record.facts.get("memory_bytes_per_rank", weights)
    # facts of an import may lack one of them: no picture is better than a wrong one
    if not isinstance(weights, list) or not isinstance(whole, list) or len(whole) != len(weights):
        return []
    return [
        # a cache of less than nothing could not be drawn
        (f"rank {rank}", weight, max(0, both - weight))
        for rank, (weight, both) in enumerate(zip(weights, whole, strict=True))
    ]


def history(card: Card) -> list[tuple[str, str, str]]:
    """When, what and who, newest first."""
    return [(moment(event.at), describe_event(event), event.by) for event in reversed(card.events)]


def commands(record: VersionRecord) -> list[str]:
    """How to look at it, fetch it and serve it."""
    reference = quote(record.reference)
    backend = find_backend(record.facts.get("backend"))
    server = backend.server if backend is not None else None
    served = f"enginery export {reference} --to {server} --out ./serving"
    example = f"enginery generate {reference} 'Once upon a time'"
    return [
        f"enginery pull {reference} ./engine",
        f"enginery verify {reference}",
        served if server is not None else example,
    ]
