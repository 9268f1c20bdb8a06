"""The accuracy gate: how far the engine is from the source checkpoint, how sure that is, what follows."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GateFailed
from recipes.schema import Limits

# S: samples (scored sequences)   R: resamples   C: columns of a record
Array = NDArray[np.float64]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]

GATE_SEED = 0
"""Seed of sampling and shuffling the gate's data: part of the baseline's revision, not of the recipe."""

# fixed, like the seed: the same records give the same verdict on every run
RESAMPLES = 2000
SEED = 20260101
CONFIDENCE = 0.95
MIN_SAMPLES = 8
"""Fewer samples give no interval worth the name; below, t quantiles leave the range of the resamples."""
MOST_MORE = 1_000_000
"""Estimates of missing samples above this are reported as none: the value sits on its limit."""


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """Sums over the scored tokens of one sequence; a record is one sample of the bootstrap."""

    tokens: int
    baseline_nll: float
    """Negative log likelihood of the sequence under the source checkpoint, nats."""
    engine_nll: float
    """The same under the built engine."""
    kl: float
    """Token KL divergence of the engine from the source checkpoint, summed, nats."""
    agreed: int
    """Tokens whose most likely next token is the same in both."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or not 0 <= self.agreed <= self.tokens:
            raise ValueError(
                f"record with {self.tokens} tokens of which {self.agreed} agreed; "
                "at least 1 token is needed, and agreed lies within 0..tokens"
            )

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Record":
        """The record in a row of `samples.jsonl`; a missing field is a KeyError."""
        return cls(
            int(row["tokens"]),
            float(row["baseline_nll"]),
            float(row["engine_nll"]),
            float(row["kl"]),
            int(row["agreed"]),
        )

    @property
    def finite(self) -> bool:
        """Whether every sum is a number."""
        return all(map(math.isfinite, (self.baseline_nll, self.engine_nll, self.kl)))


def read_records(path: Path) -> list[Record]:
    """Records of a `samples.jsonl`, one line each."""
    return [Record.of(json.loads(line)) for line in path.read_text().splitlines()]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric over all samples and its 95 % confidence interval; not finite where a record is not."""

    value: float
    low: float
    high: float

    @property
    def finite(self) -> bool:
        """Whether the value and both ends are numbers."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))


METRICS: dict[str, Callable[[Array], Array]] = {
    "kl": lambda totals: totals[:, 3] / totals[:, 0],
    "top1_agreement": lambda totals: totals[:, 4] / totals[:, 0],
    # from the column of differences: subtracting two large sums here would lose digits
    "perplexity_ratio": lambda totals: np.exp(totals[:, 2] / totals[:, 0]),
    "baseline_perplexity": lambda totals: np.exp(totals[:, 1] / totals[:, 0]),
    "engine_perplexity": lambda totals: np.exp((totals[:, 1] + totals[:, 2]) / totals[:, 0]),
}
"""Metric -> its value from summed columns (tokens, baseline nll, engine minus baseline nll, kl, agreed)."""

LIMIT_IS: dict[str, Literal["most", "least"]] = {
    "kl": "most",
    "top1_agreement": "least",
    "perplexity_ratio": "most",
}
"""Metrics that a recipe can limit, and from which side."""


def estimates(records: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric with its interval: paired bootstrap over samples, whatever the order of the records.

    Source checkpoint and engine scored the same tokens, so whole records are resampled. The interval is the
    expanded percentile one (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 3.3):
    percentiles as far out as Student's t asks, because plain ones are too narrow for few samples.
    """
    if not records:
        raise ValueError("no records to estimate from; score at least one sequence")
    # sorted: resampling draws by position, and the order of records must not change an interval
    columns = _columns(sorted(records))
    with np.errstate(over="ignore", invalid="ignore"):
        totals = _resampled_totals(columns)
        tail = _tail_probability(len(records))
        return {
            name: _interval(float(value(columns.sum(0, keepdims=True))[0]), value(totals), tail)
            for name, value in METRICS.items()
        }


def differences(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Estimate]:
    """Every metric of one engine less that of another on the same sequences, in the same order, paired.

    Both are resampled together, so what makes a sequence hard for both is no noise of the difference. Other
    sequences, or another source checkpoint, are a ValueError.
    """
    # equal to the last bit, as both come from the same baseline's records
    identities = [[(record.tokens, record.baseline_nll) for record in records] for records in (before, after)]
    if not before or identities[0] != identities[1]:
        raise ValueError("the two were not scored on the same sequences by the same source checkpoint")
    left, right = _columns(before), _columns(after)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = _resampled_totals(left), _resampled_totals(right)  # one seed: the same draws of sequences
        tail = _tail_probability(len(before))
        sums = left.sum(0, keepdims=True), right.sum(0, keepdims=True)
        return {
            name: _interval(
                float((value(sums[1]) - value(sums[0]))[0]), value(totals[1]) - value(totals[0]), tail
            )
            for name, value in METRICS.items()
        }


def _columns(records: Sequence[Record]) -> Array:
    """Records as rows of sums: (S, C)."""
    return np.array(
        [(r.tokens, r.baseline_nll, r.engine_nll - r.baseline_nll, r.kl, r.agreed) for r in records]
    )


def _resampled_totals(columns: Array) -> Array:
    """Column sums of `RESAMPLES` draws of S samples with replacement: (S, C) -> (R, C)."""
    num = len(columns)
    rng = np.random.default_rng(SEED)
    blocks = []
    for _ in range(0, RESAMPLES, 100):  # 100 rows of counts at a time keep memory small for long gate sets
        # how often each sample was drawn: one product then gives all the sums, without indexing rows
        counts = rng.multinomial(num, np.full(num, 1 / num), size=100)
        blocks.append(counts.astype(np.float64) @ columns)
    return np.concatenate(blocks)


def _tail_probability(num: int) -> float:
    """Probability left out at each end, so that the percentiles reach as far as Student's t would."""
    if num < MIN_SAMPLES:
        return 0.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    nu = num - 1
    # Expansion of the t quantile around the normal one: Abramowitz and Stegun, 26.7.5.
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    # sqrt(num / nu): the bootstrap's variance divides by n, Student's by n - 1
    return NormalDist().cdf(-t * math.sqrt(num / nu))


def _interval(value: float, resampled: Array, tail: float) -> Estimate:
    """The interval that leaves `tail` out at each end, widened where rounding or skew put the value out."""
    # one infinite draw is enough: quantiles of the rest would look sound
    if not (math.isfinite(value) and np.isfinite(resampled).all()):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


@dataclass(frozen=True, slots=True)
class Check:
    """One metric against its limit."""

    metric: str
    value: float
    low: float
    high: float
    limit: float
    outcome: Outcome
    why: str
    """Empty on PASS; otherwise what is beyond the limit, or what evidence is missing."""
    more_samples: int | None = None
    """When INCONCLUSIVE: about how many more samples would settle it; None where no number would."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of one engine; only PASS may be published."""

    checks: tuple[Check, ...]
    samples: int
    scored: str = ""
    """Directory of the twin whose scores these are, in the engine; empty: the engine's own."""
    begin: str = ""
    """Tokens that every scored sequence begins with, not scored; empty: the tokenizer adds none."""

    @property
    def outcome(self) -> Outcome:
        """FAIL when any check fails, else INCONCLUSIVE when any is, else PASS."""
        outcomes = {check.outcome for check in self.checks}
        # no check at all is no pass: all() of nothing would be one
        if "FAIL" in outcomes or not outcomes:
            return "FAIL"
        return "INCONCLUSIVE" if "INCONCLUSIVE" in outcomes else "PASS"

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON; values that are not finite become null."""
        about = {"scored": self.scored, "sequences_begin_with": self.begin}
        marks = {name: value for name, value in about.items() if value}
        return {"outcome": self.outcome, "samples": self.samples, "checks": self.rows(), **marks}

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> "Verdict":
        """The verdict that `as_dict` wrote; a missing field is a KeyError or TypeError."""
        # null stood for any value that is not finite; which one is lost, and none passes
        nan = dict.fromkeys(("value", "low", "high"), math.nan)
        rows = [{**row, **{k: v for k, v in nan.items() if row[k] is None}} for row in data["checks"]]
        marks = (data.get(name, "") for name in ("scored", "sequences_begin_with"))
        return cls(tuple(Check(**row) for row in rows), int(data["samples"]), *marks)

    def rows(self) -> list[dict[str, Any]]:
        """One row per check, for tables."""
        return [{name: _or_none(value) for name, value in asdict(check).items()} for check in self.checks]

    def require(self) -> None:
        """Raises GateFailed, with every check that is in the way, unless the outcome is PASS."""
        if self.outcome == "PASS":
            return
        stops = [check for check in self.checks if check.outcome != "PASS"]
        counts = f"{len(stops)} of {len(self.checks)} checks over {self.samples} samples did not pass"
        counts += f" (scores of the engine's twin, {self.scored}/)" if self.scored else ""
        advice = "raise gate.max_sequences or give more gate data"
        if self.outcome == "FAIL":
            advice = (
                "choose a milder format, calibrate on data closer to the use, or change the recipe's limits"
            )
        details = [f"  {check.metric}: {check.why}" for check in stops]
        raise GateFailed("\n".join([f"accuracy gate says {self.outcome}: {counts}; {advice}", *details]))


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(limits: Limits, records: Sequence[Record], scored: str = "", begin: str = "") -> Verdict:
    """Compares each limited metric: PASS when its interval is within the limit, FAIL when all is beyond it.

    A value that is not finite, anywhere in the records, is FAIL for every check. `scored` names a twin,
    `begin` the tokens in front of every sequence.
    """
    estimated = estimates(records)
    broken = sum(not record.finite for record in records)
    checks = [
        _check(metric, estimated[metric], limit, samples=len(records), broken=broken)
        for metric, limit in limits.model_dump(exclude_none=True).items()
    ]
    return Verdict(tuple(checks), len(records), scored, begin)


def _check(metric: str, estimate: Estimate, limit: float, *, samples: int, broken: int) -> Check:
    def check(outcome: Outcome, why: str, more: int | None = None) -> Check:
        return Check(metric, estimate.value, estimate.low, estimate.high, limit, outcome, why, more)

    side = LIMIT_IS[metric]
    sign = 1.0 if side == "most" else -1.0
    # the sign turns "at least" into "at most", so that one comparison serves both
    best, worst = sorted((sign * estimate.low, sign * estimate.high))
    interval = f"{estimate.value:.6g} (95 % interval {estimate.low:.6g} to {estimate.high:.6g})"
    # first: comparisons with NaN are all False, and would come out as INCONCLUSIVE
    if broken or not estimate.finite:
        return check("FAIL", f"{broken} of {samples} samples hold values that are not finite")
    if samples < MIN_SAMPLES:
        text = f"{samples} samples are too few for an interval; at least {MIN_SAMPLES} are needed"
        return check("INCONCLUSIVE", text, MIN_SAMPLES - samples)
    if worst <= sign * limit:
        return check("PASS", "")
    if best > sign * limit:
        return check("FAIL", f"{interval} is beyond the limit, at {side} {limit:g}")
    more = _more_samples(estimate, limit, samples)
    hint = "the value sits on the limit" if more is None else f"about {more} more samples would settle it"
    return check("INCONCLUSIVE", f"{interval} straddles the limit, at {side} {limit:g}; {hint}", more)


def _more_samples(estimate: Estimate, limit: float, samples: int) -> int | None:
    """Samples to add until the interval, which narrows with the root of their number, clears the limit."""
    gap = abs(limit - estimate.value)
    # the side of the interval that lies towards the limit; the two differ under skew
    reach = estimate.high - estimate.value if limit > estimate.value else estimate.value - estimate.low
    # without a division: the gap may be 0
    if gap * math.sqrt(MOST_MORE / samples) <= reach:
        return None
    # rounding may give 0 for an interval that just touches the limit
    return max(1, math.ceil(samples * (reach / gap) ** 2) - samples)
