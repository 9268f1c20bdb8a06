"""Two versions side by side, and which differences mean something; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.version import VersionRecord
from pipeline.card.content import NAMES, SPEEDS, speeds
from pipeline.card.words import NONE, number, size

SPEED_NOISE = 0.05
"""Speeds closer than this share are called the same: a measurement has no interval of its own."""

HIGHER_IS_BETTER = frozenset({"top1_agreement", "tokens_per_s", "tokens_per_s_per_user"})

FACTS = (
    "backend", "format", "dtype", "kv_cache", "tp", "pp", "max_batch_size", "max_seq_len", "target", "device",
    "cpu", "sm", "scored", "measured",
)  # fmt: skip
"""Facts that are compared as they are; the toolchain follows by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One line of a comparison."""

    group: str
    """`recipe`, `engine`, `accuracy`, `speed` or `size`."""
    what: str
    a: str
    b: str
    same: bool
    verdict: str
    """What it means that B is not like A: `better`, `worse`, `within noise`, `differs`; empty where equal."""
    text: str = ""
    """By how much, in words."""


def compare(a: VersionRecord, b: VersionRecord) -> list[Difference]:
    """Everything that can be compared, equal or not; B is judged against A."""
    return [*_accuracy(a, b), *_speed(a, b), *_size(a, b), *_engine(a, b), *_recipe(a, b)]


def _accuracy(a: VersionRecord, b: VersionRecord) -> Iterator[Difference]:
    """Accuracy: intervals that overlap are within noise."""
    yield _plain("accuracy", "verdict", a.verdict, b.verdict)
    for name, words in NAMES.items():
        ours, theirs = (next((m for m in one.metrics if m.name == name), None) for one in (a, b))
        if ours is None and theirs is None:
            continue
        said = [
            NONE if m is None else f"{number(m.value)} ({number(m.low)} to {number(m.high)})"
            for m in (ours, theirs)
        ]
        verdict = "" if said[0] == said[1] else "differs"
        if ours is not None and theirs is not None and verdict:
            apart = _apart((ours.low, ours.high), (theirs.low, theirs.high))
            better = (theirs.value > ours.value) == (name in HIGHER_IS_BETTER)
            verdict = ("better" if better else "worse") if apart else "within noise"
            if name == "baseline_perplexity":  # of the source, so neither engine is the better for it
                verdict = "differs"
        yield Difference(
            group="accuracy", what=words, a=said[0], b=said[1], same=not verdict, verdict=verdict
        )


def _apart(ours: tuple[float | None, float | None], theirs: tuple[float | None, float | None]) -> bool:
    """Whether two intervals have no value in common; without an interval nothing is certain."""
    (low, high), (other_low, other_high) = ours, theirs
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return high < other_low or other_high < low


def _speed(a: VersionRecord, b: VersionRecord) -> Iterator[Difference]:
    """Speed at each batch size that both were measured at."""
    rows = [{row["batch_size"]: row for row in speeds(one)} for one in (a, b)]
    for batch in sorted(rows[0].keys() & rows[1].keys()):
        for figure, words in SPEEDS.items():
            ours, theirs = (found[batch].get(figure) for found in rows)
            if ours is not None and theirs is not None:
                yield _ratio(
                    "speed", f"{words}, batch {batch:.0f}", ours, theirs, higher=figure in HIGHER_IS_BETTER
                )
    for batch in sorted(rows[0].keys() ^ rows[1].keys()):
        said = ["measured" if batch in found else "not measured" for found in rows]
        yield _plain("speed", f"batch {batch:.0f}", *said)


def _size(a: VersionRecord, b: VersionRecord) -> Iterator[Difference]:
    ours, theirs = a.metric("size_bytes"), b.metric("size_bytes")
    if ours is not None and theirs is not None:
        yield _ratio("size", "engine on disk", ours, theirs, higher=False)
    per_rank = [one.facts.get("memory_bytes_per_rank") or [] for one in (a, b)]
    if all(per_rank):
        ours, theirs = (float(max(found)) for found in per_rank)
        yield _ratio("size", "memory of the largest rank", ours, theirs, higher=False)


def _ratio(group: str, what: str, ours: float, theirs: float, *, higher: bool) -> Difference:
    """A number that is better when higher, or when lower; sizes are exact, speeds have noise."""
    show = size if group == "size" else number
    change = (theirs - ours) / ours if ours else 0.0
    noise = 0.0 if group == "size" else SPEED_NOISE
    if abs(change) <= noise:
        verdict = "" if ours == theirs else "within noise"
    else:
        verdict = "better" if (change > 0) == higher else "worse"
    text = f"{change:+.0%}" if ours != theirs else ""
    a, b = show(ours), show(theirs)
    return Difference(group=group, what=what, a=a, b=b, same=not verdict, verdict=verdict, text=text)


def _engine(a: VersionRecord, b: VersionRecord) -> Iterator[Difference]:
    """What a host needs, the toolchain and the limits."""
    for name in FACTS:
        values = [one.facts.get(name) for one in (a, b)]
        if values != [None, None]:
            yield _plain("engine", name.replace("_", " "), *values)
    tools = [one.facts.get("toolchain", {}) for one in (a, b)]
    for name in sorted(tools[0].keys() | tools[1].keys()):
        yield _plain("engine", f"toolchain: {name}", *(found.get(name) for found in tools))
    for what, of in (("source checkpoint", "model"), ("engine key", "engine_key"), ("origin", "origin")):
        yield _plain("engine", what, getattr(a, of), getattr(b, of))


def _recipe(a: VersionRecord, b: VersionRecord) -> Iterator[Difference]:
    ours, theirs = dict(_flat(a.recipe)), dict(_flat(b.recipe))
    for field in [*ours, *(extra for extra in theirs if extra not in ours)]:
        yield _plain("recipe", field, ours.get(field), theirs.get(field))


def _flat(value: Any, under: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value by its dotted place."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{under}.{name}" if under else str(name))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{under}[{index}]")
    else:
        yield under, value


def _plain(group: str, what: str, a: Any, b: Any) -> Difference:
    said = [NONE if value in (None, "") else str(value) for value in (a, b)]
    verdict = "" if a == b else "differs"
    return Difference(group=group, what=what, a=said[0], b=said[1], same=a == b, verdict=verdict)
