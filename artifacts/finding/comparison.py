"""The comparison of two versions as values, with texts for people; pure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from artifacts.version import Metric

Judgement = Literal["better", "worse", "noise", "same", "unsure"]
"""`noise`: the difference is within its uncertainty; `unsure`: the two values are not comparable."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of recipe, toolchain or facts in which two versions differ."""

    place: str
    """Dotted, e.g. `engine.tp`."""
    before: Any
    """None where the field is missing."""
    after: Any

    @property
    def text(self) -> str:
        """The difference in words."""
        return f"{self.place}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of two versions."""

    name: str
    """`figure` or `figure@batch`."""
    words: str
    """Description of the metric."""
    before: Metric
    after: Metric
    judgement: Judgement
    why: str
    """Basis of the judgement."""
    difference: Metric | None = None
    """After - before, with the 95 % interval that decides; None where no interval was estimated."""

    @property
    def text(self) -> str:
        """The difference in words."""
        labels = {"same": "the same", "noise": "no more than noise", "unsure": "not comparable"}
        judgement = labels.get(self.judgement, self.judgement)
        if self.difference is not None and self.judgement in ("better", "worse"):
            judgement += ", and more than noise"
        figures = f"{_number(self.before.value)} -> {_number(self.after.value)}{_share(self)}"
        reason = f" ({self.why})" if self.why else ""
        return f"{self.name}: {figures}: {judgement}{reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All differences between two versions; equal settings are left out, metrics are all listed."""

    before: str
    """`NAME:NUMBER`."""
    after: str
    same_engine: bool
    """Whether both are the same artifact."""
    origin: tuple[Setting, ...]
    """Source checkpoint, licence, who built it, verdict."""
    recipe: tuple[Setting, ...]
    toolchain: tuple[Setting, ...]
    needs: tuple[Setting, ...]
    """Requirements on the host, and the limits."""
    accuracy: tuple[Measured, ...]
    speed: tuple[Measured, ...]
    size: tuple[Measured, ...]

    @property
    def summary(self) -> str:
        """One sentence about the first metric of accuracy, speed and size."""
        if self.same_engine:
            return f"{self.after} is the same engine as {self.before}"
        parts = [_gist(metrics) for metrics in (self.accuracy, self.speed, self.size) if metrics]
        changes = ", ".join(parts) or "nothing is measured of both"
        return f"{self.after} against {self.before}: {changes}"

    @property
    def sections(self) -> tuple[tuple[str, tuple[Setting | Measured, ...]], ...]:
        """Title and differences in display order; every difference has a `text`."""
        return (
            ("source", self.origin),
            ("recipe", self.recipe),
            ("toolchain", self.toolchain),
            ("host and limits", self.needs),
            ("accuracy", self.accuracy),
            ("speed", self.speed),
            ("size", self.size),
        )

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {**asdict(self), "summary": self.summary}


def _gist(metrics: tuple[Measured, ...]) -> str:
    """The summary of a section: the judgement of its first metric."""
    first = metrics[0]
    name = first.name.replace("size_bytes", "size")
    if first.judgement == "unsure":
        return f"{name} not comparable"
    if first.judgement in ("same", "noise"):
        return f"{name} the same" if first.judgement == "same" else f"{name} no more different than noise"
    return f"{name} {first.judgement}{_share(first)}"


def _share(measured: Measured) -> str:
    before, after = measured.before.value, measured.after.value
    if before <= 0 or before == after:
        return ""
    ratio = after / before
    if ratio >= 2:
        return f" ({ratio:.3g} times as much)"
    # Percentages are hard to read beyond a factor of two in either direction.
    return f" ({1 / ratio:.3g} times less)" if ratio <= 0.5 else f" ({ratio - 1:+.1%})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _shown(value: Any) -> str:
    """A value as text; a list of equal items as `COUNT x ITEM`."""
    if value is None:
        return "not given"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    # By text: items may be dicts, which cannot be hashed.
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        return str(value[0]) if len(value) == 1 else f"{len(value)} x {value[0]}"
    return str(value)
