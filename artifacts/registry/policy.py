"""What a version must be before an alias may point at it; pure."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from artifacts.errors import PolicyInvalid

SKEW = timedelta(minutes=5)
"""By so much may the clocks of the hosts that use one registry differ; more is a clock that is wrong."""

VERDICTS = ("PASS", "UNVERIFIED")
"""Verdicts that versions have; others are not published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a metric must be between, ends included."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules of an alias; where nobody set any, only the verdict counts."""

    verdict: tuple[str, ...] = ("PASS",)
    """Verdicts that are good enough."""
    max_age_days: float | None = None
    """Days since publication."""
    signed_by: tuple[str, ...] = ()
    """Public keys in PEM; a signature by one of them is asked for."""
    measured_on_target: bool = False
    """Whether its speed must have been measured, as it is served, on the GPU that it was built for."""
    metrics: Mapping[str, Bounds] = field(default_factory=dict)
    no_open_waivers: bool = False
    """Whether no waiver may be open for the version, for whichever alias."""

    def as_dict(self) -> dict[str, Any]:
        """The rules as JSON values, without those that ask for nothing."""
        whole = asdict(self)
        whole["metrics"] = {
            name: {end: value for end, value in asdict(bounds).items() if value is not None}
            for name, bounds in self.metrics.items()
        }
        kept = {name: value for name, value in whole.items() if value not in (None, (), {}, False)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a policy looks at of a version."""

    at: datetime
    """The moment of judgement."""
    verdict: str
    published_at: datetime
    collected_at: datetime | None
    facts: Mapping[str, Any]
    metrics: Mapping[str, float]
    signed: Callable[[str], bool]
    """Whether there is a good signature by a public key (PEM)."""
    open_waivers: int
    newest: datetime | None = None
    """The latest moment in the registry's log, where somebody asks for an age."""
    newest_said: str = ""
    """Which event that is and by whom."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a version does not meet."""

    rule: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.why}"


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """The policy that a JSON object describes; an unknown rule or a value that cannot be is PolicyInvalid."""
    unknown = sorted(set(document) - set(READ))
    if unknown:
        raise PolicyInvalid(f"unknown rule {unknown[0]!r}; have {', '.join(READ)}")
    rules = {}
    for rule, value in document.items():
        try:
            rules[rule] = READ[rule](value)
        except (TypeError, ValueError, AttributeError) as exc:
            raise PolicyInvalid(f"rule {rule}: {value!r} cannot be; {exc}") from None
    return Policy(**rules)


def broken(policy: Policy, subject: Subject) -> list[Broken]:
    """Every rule that the version does not meet, with why; every policy asks for its files."""
    found = [(rule, why) for rule, judge in JUDGES.items() if (why := judge(policy, subject))]
    return [Broken(rule, why) for rule, why in found]


def _present(_: Policy, subject: Subject) -> str | None:
    if subject.collected_at is None:
        return None
    return f"gc took its files on {subject.collected_at:%Y-%m-%d}; run its recipe again"


def _verdict(policy: Policy, subject: Subject) -> str | None:
    if subject.verdict in policy.verdict:
        return None
    return f"its verdict is {subject.verdict}, not {' or '.join(policy.verdict)}"


def _max_age(policy: Policy, subject: Subject) -> str | None:
    if policy.max_age_days is None:
        return None
    age = subject.at - subject.published_at
    latest, said = subject.published_at, "the version's publication"
    if subject.newest is not None and subject.newest >= latest:
        latest, said = subject.newest, subject.newest_said
    if latest - subject.at > SKEW:
        return (
            f"the clock says {subject.at:%Y-%m-%d %H:%M}, and {said} is of "
            f"{latest.astimezone(UTC):%Y-%m-%d %H:%M} UTC: this clock was set back, or that one was ahead, "
            "so that no age is known; where this clock is wrong, set it right; where it is right, wait until "
            "then, or `enginery registry waive NAME:NUMBER ALIAS max_age_days --reason WHY "
            "--for TIME` past then"
        )
    if age <= timedelta(days=policy.max_age_days):
        return None
    days = age.total_seconds() / 86400
    return f"it was published {days:,.1f} days ago, and at most {policy.max_age_days:g} are allowed"


def _signed_by(policy: Policy, subject: Subject) -> str | None:
    if not policy.signed_by or any(subject.signed(key) for key in policy.signed_by):
        return None
    count = len(policy.signed_by)
    return f"it has no good signature by {'the key' if count == 1 else f'one of the {count} keys'} asked for"


def _measured(policy: Policy, subject: Subject) -> str | None:
    """An engine for `host` was measured where it was built; other targets name GPUs, such as `h100-pcie`."""
    if not policy.measured_on_target:
        return None
    target, facts = str(subject.facts.get("target", "host")), subject.facts
    if "tokens_per_s" not in subject.metrics:
        return "its speed was not measured"
    if "measured" in facts:
        return f"it was measured {facts['measured']}, otherwise than it is served"
    names = [str(gpu["name"]) for gpu in facts.get("gpus", [])]
    if target == "host" or any(_is_gpu(target, name) for name in names):
        return None
    return f"it was built for {target} and measured on {', '.join(dict.fromkeys(names)) or 'no GPU'}"


def _is_gpu(target: str, name: str) -> bool:
    """Whether the words of `a100-40g` are in `NVIDIA A100-SXM4-40GB`; `h20` is not in `NVIDIA H200`."""
    model, *form = target.lower().split("-")
    words = re.split(r"[\s-]+", name.lower())
    return model in words and all(any(word.startswith(part) for word in words) for part in form)


def _metrics(policy: Policy, subject: Subject) -> str | None:
    """The first metric that is out of its bounds; one that was not measured is."""
    for name, bounds in policy.metrics.items():
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
"""Rule -> why a version does not meet it, None where it does."""

WAIVABLE = tuple(rule for rule in JUDGES if rule not in ("present", "no_open_waivers"))
"""Rules that somebody may waive, with a reason and for a time."""


def _verdicts(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value)
    if not found or not set(found) <= set(VERDICTS):
        raise ValueError(f"have {', '.join(VERDICTS)}")
    return found


def _positive(value: Any) -> float:
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
    found = {str(name): Bounds(**ends) for name, ends in value.items()}
    for name, bounds in found.items():
        ends = [end for end in (bounds.min, bounds.max) if end is not None]
        if not ends or not all(math.isfinite(end) for end in ends) or ends != sorted(ends):
            raise ValueError(f"give {name} a finite min, max, or both in order")
    return found


READ: dict[str, Callable[[Any], Any]] = {
    "verdict": _verdicts,
    "max_age_days": _positive,
    "signed_by": _keys,
    "measured_on_target": _flag,
    "metrics": _bounds,
    "no_open_waivers": _flag,
}
"""Rule -> its value out of JSON."""
