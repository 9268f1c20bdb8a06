"""Compares two versions, and tells differences from noise; pure."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from artifacts.address import is_same
from artifacts.finding.comparison import Comparison, Judgement, Measured, Setting
from artifacts.version import Metric, VersionRecord

__all__ = ["Comparison", "Judgement", "Measured", "Setting", "compare", "difference", "same_samples"]

ACCURACY = {
    "kl": "divergence from the source checkpoint (KL, nats)",
    "top1_agreement": "share of tokens predicted as by the source checkpoint",
    "perplexity_ratio": "perplexity over the source checkpoint's",
}
SPEED = {
    "tokens_per_s": "output tokens per second in all",
    "tokens_per_s_per_user": "output tokens per second of one request",
    "ttft_ms_p95": "time to first token, 95th percentile, ms",
    "itl_ms_p95": "time between tokens, 95th percentile, ms",
}
NOTES = {"speed": "each timed once, possibly beside other load: only large differences are meaningful"}
"""Section -> limit of its judgements."""

SIZE = {"size_bytes": "bytes of the engine"}
"""Compared metric -> its description."""

MORE_IS_BETTER = frozenset({"top1_agreement", "tokens_per_s", "tokens_per_s_per_user"})
"""Metrics that improve as they grow; the others improve as they shrink."""

SPEED_NOISE = 0.05
"""Speeds have no confidence interval; a relative change below this is called noise (our choice)."""


def compare(
    before: VersionRecord, after: VersionRecord, paired: Mapping[str, Metric] | None = None
) -> Comparison:
    """Compares two versions by their registered recipe, facts and metrics.

    `paired` holds, per accuracy metric, the difference (after - before) over the same samples with its 95 %
    interval, where both versions were scored on the same samples: it is narrower than a difference of the
    two versions' own intervals.
    """
    left, right = before.facts, after.facts
    return Comparison(
        before=before.reference,
        after=after.reference,
        same_engine=before.engine_key == after.engine_key
        and is_same(before.manifest_digest, after.manifest_digest),
        origin=_settings(_origin(before), _origin(after)),
        recipe=_settings(_recipe_settings(before), _recipe_settings(after)),
        toolchain=_settings(left.get("toolchain", {}), right.get("toolchain", {})),
        needs=_settings(_needs(left), _needs(right)),
        accuracy=tuple(_accuracy(before, after, paired or {})),
        speed=tuple(_speed(before, after)),
        size=tuple(_plain(before, after, SIZE, exact=True)),
    )


def same_samples(before: VersionRecord, after: VersionRecord) -> bool:
    """Whether both were scored on the same tokens against the same source checkpoint."""
    baseline = before.lineage.get("baseline")
    if baseline is not None and baseline == after.lineage.get("baseline"):
        return True
    return bool(before.recipe.get("gate")) and _scored_on(before) == _scored_on(after)


def difference(before: Metric, after: Metric) -> Metric | None:
    """The difference (after - before) with a 95 % interval from both intervals; None where one is missing.

    The square-and-add interval (Zou and Donner, Statistics in Medicine 27, 2008, equation 6), which keeps
    asymmetric intervals asymmetric. It assumes independence, so it is too wide for the same samples.
    """
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    value = after.value - before.value
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Metric(after.name, value, value - down, value + up)


def _accuracy(
    before: VersionRecord, after: VersionRecord, paired: Mapping[str, Metric]
) -> Iterator[Measured]:
    comparable = same_samples(before, after)
    for name, words in ACCURACY.items():
        left, right = _metric(before, name), _metric(after, name)
        if left is None or right is None:
            continue
        # A paired difference has the narrower interval.
        change = paired.get(name) or difference(left, right)
        if not comparable:
            reason = "scored on other text, or against another source checkpoint"
            yield Measured(name, words, left, right, "unsure", reason)
        # Intervals included: equal values with other intervals are compared below.
        elif left == right:
            yield Measured(name, words, left, right, "same", "", change)
        elif change is None or change.low is None or change.high is None:
            yield Measured(name, words, left, right, "unsure", "no interval was estimated")
        else:
            method = "same samples, paired" if name in paired else "from both intervals"
            reason = (
                f"difference {change.value:+.2g}, 95 % from {change.low:+.2g} to {change.high:+.2g}; {method}"
            )
            # The interval excludes zero.
            sure = change.low > 0 or change.high < 0
            judgement = _better(name, change.value) if sure else "noise"
            yield Measured(name, words, left, right, judgement, reason, change)


def _speed(before: VersionRecord, after: VersionRecord) -> Iterator[Measured]:
    """Each batch size timed for both, largest first; the metrics without a batch size where none was."""
    # The first obstacle is reported: other batch sizes do not matter on other hardware.
    elsewhere = "timed on other hardware" if _hardware(before.facts) != _hardware(after.facts) else ""
    batches = [_batches(record) for record in (before, after)]
    common = sorted(batches[0] & batches[1], reverse=True)
    if common:
        names = {f"{name}@{batch}": words for batch in common for name, words in SPEED.items()}
        yield from _plain(before, after, names, elsewhere)
    else:
        apart = "timed at other batch sizes" if batches[0] or batches[1] else ""
        yield from _plain(before, after, SPEED, elsewhere or apart)


def _plain(
    before: VersionRecord,
    after: VersionRecord,
    names: Mapping[str, str],
    obstacle: str = "",
    *,
    exact: bool = False,
) -> Iterator[Measured]:
    """Figures without intervals; `obstacle` is why they cannot be compared, `exact` ones have no noise."""
    for name, words in names.items():
        left, right = _metric(before, name), _metric(after, name)
        if left is None or right is None:
            continue
        if obstacle:
            yield Measured(name, words, left, right, "unsure", obstacle)
        elif left.value == right.value:
            yield Measured(name, words, left, right, "same", "")
        elif not exact and abs(right.value - left.value) < SPEED_NOISE * abs(left.value):
            reason = f"less than {SPEED_NOISE:.0%}, and timed without an interval"
            yield Measured(name, words, left, right, "noise", reason)
        else:
            yield Measured(name, words, left, right, _better(name, right.value - left.value), "")


def _better(name: str, change: float) -> Judgement:
    return "better" if (change > 0) == (name.partition("@")[0] in MORE_IS_BETTER) else "worse"


def _metric(record: VersionRecord, name: str) -> Metric | None:
    return next((metric for metric in record.metrics if metric.name == name), None)


def _batches(record: VersionRecord) -> set[int]:
    parts = (metric.name.partition("@") for metric in record.metrics)
    return {int(batch) for name, _, batch in parts if name in SPEED and batch.isdigit()}


def _hardware(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    device = str(facts.get("device", "")).partition(":")[0]
    # A GPU's number in the host does not matter, its name does.
    return (device, facts.get("cpu") if device == "cpu" else [gpu["name"] for gpu in facts.get("gpus", [])])


def _scored_on(record: VersionRecord) -> tuple[Any, Any]:
    gate = {name: value for name, value in record.recipe["gate"].items() if name != "limits"}
    return record.recipe.get("model"), gate


def _origin(record: VersionRecord) -> dict[str, Any]:
    return {
        "verdict": record.verdict,
        "origin": record.origin,
        "model": record.model or None,
        **{name: value for name, value in record.source.items() if name not in ("repo", "path")},
    }


def _recipe_settings(record: VersionRecord) -> dict[str, Any]:
    """The recipe, its format on one line."""
    settings = {place: value for place, value in record.recipe.items() if place not in ("name", "version")}
    if isinstance(settings.get("format"), Mapping):
        exceptions = settings["format"].get("except", {})
        exceptions_text = ", ".join(f"{pattern}: {name}" for pattern, name in exceptions.items())
        settings["format"] = f"{settings['format'].get('default')} except {exceptions_text}"
    return settings


def _needs(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about host and limits; GPU names only, since facts list one GPU per rank."""
    names = sorted({gpu["name"] for gpu in facts.get("gpus", [])})
    rest = {name: value for name, value in facts.items() if name not in ("toolchain", "gpus")}
    return {**rest, "gpus": ", ".join(names) or None}


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Setting, ...]:
    left, right = dict(_flat(before)), dict(_flat(after))
    places = dict.fromkeys([*left, *right])
    return tuple(
        Setting(place, left.get(place), right.get(place))
        for place in places
        if left.get(place) != right.get(place)
    )


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted place and value of every leaf; lists without mappings are leaves."""
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = {str(number): item for number, item in enumerate(value)}.items()
    else:
        yield place, value
        return
    for name, item in items:
        yield from _flat(item, f"{place}.{name}" if place else str(name))
