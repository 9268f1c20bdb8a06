"""Policies of aliases: rules on versions, and the check of each rule; pure."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from artifacts.errors import PolicyInvalid
from artifacts.version import Facts

SKEW = timedelta(minutes=5)
"""Largest accepted difference between the clocks of hosts that use one registry."""

VERDICTS = ("PASS", "UNVERIFIED")
"""Verdicts of published versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Inclusive bounds of a metric."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules of an alias; the default rules require only the verdict PASS."""

    verdict: tuple[str, ...] = ("PASS",)
    """Accepted verdicts."""
    max_age_days: float | None = None
    """Most days since publication."""
    signed_by: tuple[str, ...] = ()
    """Public keys in PEM; a signature by one of them is required."""
    measured_on_target: bool = False
    """Whether its speed must have been measured, as it is served, on the GPU that it was built for."""
    metrics: Mapping[str, Bounds] = field(default_factory=dict)
    no_open_waivers: bool = False
    """Whether the version must have no open waiver, for any alias."""

    def as_dict(self) -> dict[str, Any]:
        """The rules as JSON values, without those that require nothing."""
        rules = asdict(self)
        rules["metrics"] = {
            name: {end: value for end, value in asdict(bounds).items() if value is not None}
            for name, bounds in self.metrics.items()
        }
        set_rules = {name: value for name, value in rules.items() if value not in (None, (), {}, False)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in set_rules.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The properties of a version that rules use."""

    at: datetime
    """The moment of judgement."""
    verdict: str
    published_at: datetime
    collected_at: datetime | None
    facts: Facts
    metrics: Mapping[str, float]
    signed: Callable[[str], bool]
    """Whether there is a good signature by a public key (PEM)."""
    open_waivers: int
    newest: datetime | None = None
    """Time of the latest event in the registry's log, where a rule needs it."""
    newest_description: str = ""
    """Number, name and author of that event."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a version violates, and why."""

    rule: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.why}"


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """The policy that a JSON object describes; PolicyInvalid for an unknown rule or an invalid value."""
    unknown = sorted(set(document) - set(READ))
    if unknown:
        raise PolicyInvalid(f"unknown rule {unknown[0]!r}; have {', '.join(READ)}")
    rules = {}
    for rule, value in document.items():
        try:
            # A value may be of any JSON type, so each of the three errors means that it is invalid.
            rules[rule] = READ[rule](value)
        except (TypeError, ValueError, AttributeError) as exc:
            raise PolicyInvalid(f"rule {rule}: {value!r} is invalid; {exc}") from None
    return Policy(**rules)


def broken(policy: Policy, subject: Subject) -> list[Broken]:
    """Every rule that the version violates; `present` (its files exist) is part of every policy."""
    violations = [(rule, why) for rule, judge in JUDGES.items() if (why := judge(policy, subject))]
    return [Broken(rule, why) for rule, why in violations]


def _present(_: Policy, subject: Subject) -> str | None:
    if subject.collected_at is None:
        return None
    return f"gc removed its files on {subject.collected_at:%Y-%m-%d}; run its recipe again"


def _verdict(policy: Policy, subject: Subject) -> str | None:
    if subject.verdict in policy.verdict:
        return None
    return f"its verdict is {subject.verdict}, not {' or '.join(policy.verdict)}"


def _max_age(policy: Policy, subject: Subject) -> str | None:
    if policy.max_age_days is None:
        return None
    age = subject.at - subject.published_at
    latest, event = subject.published_at, "the version's publication"
    # The newest event bounds the true time from below, so it shows a clock that was set back.
    if subject.newest is not None and subject.newest >= latest:
        latest, event = subject.newest, subject.newest_description
    if latest - subject.at > SKEW:
        return (
            f"the clock says {subject.at:%Y-%m-%d %H:%M}, and {event} is of "
            f"{latest.astimezone(UTC):%Y-%m-%d %H:%M} UTC: this clock was set back, or that one was ahead, "
            "so the age is unknown; if this clock is wrong, correct it; if it is right, wait until then, or "
            "`enginery registry waive NAME:NUMBER ALIAS max_age_days --reason WHY --for TIME` past then"
        )
    if age <= timedelta(days=policy.max_age_days):
        return None
    days = age.total_seconds() / 86400
    return f"it was published {days:,.1f} days ago, and at most {policy.max_age_days:g} are allowed"


def _signed_by(policy: Policy, subject: Subject) -> str | None:
    if not policy.signed_by or any(subject.signed(key) for key in policy.signed_by):
        return None
    count = len(policy.signed_by)
    return f"it has no good signature by {'the key' if count == 1 else f'one of the {count} keys'} required"


def _measured(policy: Policy, subject: Subject) -> str | None:
    """The target `host` is the machine that built the engine; other targets name GPUs, e.g. `h100-pcie`."""
    if not policy.measured_on_target:
        return None
    target, facts = str(subject.facts.get("target", "host")), subject.facts
    if "tokens_per_s" not in subject.metrics:
        return "its speed was not measured"
    # Set where the speed is of another configuration than the served one, e.g. without draft models.
    if "measured" in facts:
        return f"it was measured {facts['measured']}, not as it is served"
    names = [str(gpu["name"]) for gpu in facts.get("gpus", [])]
    if target == "host" or any(_is_gpu(target, name) for name in names):
        return None
    return f"it was built for {target} and measured on {', '.join(dict.fromkeys(names)) or 'no GPU'}"


def _is_gpu(target: str, name: str) -> bool:
    """Whether the words of `a100-40g` are in `NVIDIA A100-SXM4-40GB`; `h20` is not in `NVIDIA H200`."""
    model, *form = target.lower().split("-")
    words = re.split(r"[\s-]+", name.lower())
    # The model must be a whole word; the rest may be a prefix, since `40g` stands for `40GB`.
    return model in words and all(any(word.startswith(part) for word in words) for part in form)


def _metrics(policy: Policy, subject: Subject) -> str | None:
    """The first metric out of its bounds; an unmeasured metric is out of bounds."""
    for name, bounds in policy.metrics.items():
        # Fail closed: without a value there is nothing to show that the bound holds.
        value = subject.metrics.get(name)
        if value is None:
            return f"{name} was not measured"
        if bounds.min is not None and value < bounds.min:
            return f"{name} is {value:g}, less than {bounds.min:g}"
        if bounds.max is not None and value > bounds.max:
            return f"{name} is {value:g}, more than {bounds.max:g}"
    return None


def _waivers(policy: Policy, subject: Subject) -> str | None:
    if not policy.no_open_waivers or not subject.open_waivers:
        return None
    return f"{subject.open_waivers} of its waivers {'is' if subject.open_waivers == 1 else 'are'} open"


JUDGES: dict[str, Callable[[Policy, Subject], str | None]] = {
    "present": _present,
    "verdict": _verdict,
    "max_age_days": _max_age,
    "signed_by": _signed_by,
    "measured_on_target": _measured,
    "metrics": _metrics,
    "no_open_waivers": _waivers,
}
"""Rule -> its check: why a version violates it, or None."""

# A waiver cannot bring removed files back, and one of `no_open_waivers` would defeat that rule.
WAIVABLE = tuple(rule for rule in JUDGES if rule not in ("present", "no_open_waivers"))
"""Rules that can be waived, with a reason and for a time."""


def _verdicts(value: Any) -> tuple[str, ...]:
    verdicts = (value,) if isinstance(value, str) else tuple(value)
    if not verdicts or not set(verdicts) <= set(VERDICTS):
        raise ValueError(f"have {', '.join(VERDICTS)}")
    return verdicts


def _positive(value: Any) -> float:
    # True would pass as 1 day.
    if isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ValueError("give a number above 0")
    return float(value)


def _keys(value: Any) -> tuple[str, ...]:
    keys = (value,) if isinstance(value, str) else tuple(value)
    if not keys or not all("-----BEGIN PUBLIC KEY-----" in key for key in keys):
        raise ValueError("give public keys in PEM")
    return keys


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _bounds(value: Any) -> dict[str, Bounds]:
    bounds_of = {str(name): Bounds(**ends) for name, ends in value.items()}
    for name, bounds in bounds_of.items():
        ends = [end for end in (bounds.min, bounds.max) if end is not None]
        # A NaN bound compares false with everything, so every version would pass it.
        if not ends or not all(math.isfinite(end) for end in ends) or ends != sorted(ends):
            raise ValueError(f"give {name} a finite min, max, or both in order")
    return bounds_of


READ: dict[str, Callable[[Any], Any]] = {
    "verdict": _verdicts,
    "max_age_days": _positive,
    "signed_by": _keys,
    "measured_on_target": _flag,
    "metrics": _bounds,
    "no_open_waivers": _flag,
}
"""Rule -> parser of its JSON value."""
