"""Matches versions with criteria: the suitable ones in order, the others with reasons; pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple, cast

from artifacts.finding.listed import Listed, collected_note
from artifacts.finding.needs import FACTS
from artifacts.version import Facts, VersionRecord

RANKS = {
    "speed": ("tokens_per_s", -1.0),
    "per_user": ("tokens_per_s_per_user", -1.0),
    "first_token": ("ttft_ms_p95", 1.0),
    "accuracy": ("kl", 1.0),
    "size": ("size_bytes", 1.0),
}
"""Rank -> metric and sign: matches are sorted by sign * metric, ascending, unmeasured ones last."""

AT_LEAST = frozenset({"tokens_per_s", "tokens_per_s_per_user", "top1_agreement"})
AT_MOST = frozenset(
    {"ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95", "kl", "perplexity_ratio", "size_bytes"}
)
"""Metrics with lower and with upper bounds in an SLO; `metric@batch` is the one at that batch size."""

CHECKPOINT = "checkpoint"
"""Backend of imported checkpoints, which cannot be served; only this backend as a criterion matches them."""

IS_CHECKPOINT = "it is a checkpoint: build an engine from it"

Version = Listed | VersionRecord


class Reason(NamedTuple):
    """Why a version does not match."""

    fact: str
    """The violated criterion: a member of `CRITERIA`."""
    text: str


class Match(NamedTuple):
    """A version and every reason why it does not match; none where it matches."""

    record: Version
    reasons: tuple[Reason, ...]

    @property
    def dropped(self) -> tuple[str, ...]:
        """The reasons in words."""
        return tuple(reason.text for reason in self.reasons)


def match(records: Iterable[Version], criteria: Mapping[str, Any], rank: str = "speed") -> list[Match]:
    """Every version: first those that match, best first, then the dropped ones with their reasons.

    An unknown criterion or rank is a ValueError. A version of another name or model has that as its only
    reason.
    """
    check_criteria(criteria, rank)
    judge = Judge(criteria)
    metric, sign = RANKS[rank]
    ranked = []
    for record in records:
        reasons, value = judge.reasons(record), record.metric(metric)
        score = inf if value is None else sign * value
        ranked.append((len(reasons), score, record.name, -record.number, Match(record, reasons)))
    # Without the match, which cannot be compared where all else is equal.
    ranked.sort(key=itemgetter(0, 1, 2, 3))
    return [entry[-1] for entry in ranked]


def check_criteria(criteria: Mapping[str, Any], rank: str = "speed") -> None:
    """Raises ValueError for an unknown criterion, rank or SLO metric."""
    unknown = sorted(criteria.keys() - CRITERIA)
    if unknown:
        raise ValueError(f"unknown fact {unknown[0]!r}; have {', '.join(CRITERIA)}")
    if rank not in RANKS:
        raise ValueError(f"unknown rank {rank!r}; have {', '.join(RANKS)}")
    for name in criteria.get("slo", {}):
        if name.partition("@")[0] not in AT_LEAST | AT_MOST:
            raise ValueError(f"unknown metric {name!r}; have {', '.join(sorted(AT_LEAST | AT_MOST))}")


class Judge:
    """Finds reasons against versions; computes those from facts once per distinct set of facts."""

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._identity = {fact: want for fact, want in criteria.items() if fact in IDENTITY}
        self._fact_criteria = {fact: want for fact, want in criteria.items() if fact in FACTS}
        self._slo: Mapping[str, float] = criteria.get("slo", {})
        self._reasons_by_facts: dict[int, tuple[Facts, tuple[Reason, ...]]] = {}

    def reasons(self, record: Version) -> tuple[Reason, ...]:
        """Every reason against a version."""
        for fact, want in self._identity.items():
            # First and alone: of another model or name, no further reason is of interest.
            text = IDENTITY[fact](record, want)
            if text is not None:
                return (Reason(fact, text),)
        return (*self.by_facts(cast("Facts", record.facts)), *self.by_state(record))

    def by_facts(self, facts: Facts) -> tuple[Reason, ...]:
        """Reasons against every version with these facts."""
        # By identity: versions with equal facts share one object, so nothing has to be compared.
        cached = self._reasons_by_facts.get(id(facts))
        if cached is None and facts.get("backend") == CHECKPOINT != self._fact_criteria.get("backend"):
            cached = self._reasons_by_facts[id(facts)] = (facts, (Reason("kind", IS_CHECKPOINT),))
        if cached is None:
            reasons = (
                Reason(fact, text)
                for fact, want in self._fact_criteria.items()
                if (text := FACTS[fact](fact, facts, want)) is not None
            )
            cached = self._reasons_by_facts[id(facts)] = (
                facts,
                tuple(reasons),
            )  # facts stay, so that no other gets the id
        return cached[1]

    def by_state(self, record: Version) -> tuple[Reason, ...]:
        """Reasons that apply to this version alone: gc removed its files, or a metric misses the SLO."""
        collected = collected_note(record)
        reasons = (Reason("bytes", collected),) if collected is not None else ()
        return (*reasons, *slo_reasons(record, self._slo))


def slo_reasons(record: Version, slo: Mapping[str, float]) -> list[Reason]:
    """The reasons why a version's metrics miss an SLO; an unmeasured metric misses it."""
    reasons = []
    for name, bound in slo.items():
        value = record.metric(name)
        least = name.partition("@")[0] in AT_LEAST
        if value is None:
            reasons.append(Reason("slo", f"{name} was not measured"))
        elif (value < bound) if least else (value > bound):
            reasons.append(
                Reason("slo", f"{name} is {value:.4g}, {'less' if least else 'more'} than {bound:g}")
            )
    return reasons


def _name(record: Version, want: str) -> str | None:
    return None if record.name == want else f"its name is {record.name!r}, not {want!r}"


def _model(record: Version, want: str) -> str | None:
    """Compares with the full name of the model or its part after the last slash, and with `@COMMIT` if given.

    The hub ignores case. For a `Listed`, the database query has compared the commit.
    """
    repo, _, commit = want.partition("@")
    model, repo_folded = record.model.casefold(), repo.casefold()
    if model != repo_folded and model.rpartition("/")[2] != repo_folded:
        return f"its model is {record.model or 'not recorded'!r}, not {repo!r}"
    revision = record.source.get("revision") if commit and isinstance(record, VersionRecord) else commit
    return None if revision == commit else f"its model is at commit {revision}, not {commit}"


IDENTITY: dict[str, Callable[[Version, str], str | None]] = {"name": _name, "model": _model}
"""Criteria that identify what a version is; a version that violates one gets no further reasons."""

CRITERIA = (*IDENTITY, *FACTS, "slo")
"""All criteria; `slo` is metric -> bound."""


@dataclass(frozen=True, slots=True)
class Group:
    """Versions that were dropped for the same criteria."""

    facts: tuple[str, ...]
    """The violated criteria."""
    matches: tuple[Match, ...]

    def texts(self, most: int = 3) -> list[str]:
        """The distinct reasons; after the first `most`, the number of the others."""
        texts = dict.fromkeys("; ".join(match.dropped) for match in _alike(self.matches))
        rest = len(texts) - most
        # A dict, not a set: the order of the reasons stays the same from run to run.
        return [*list(texts)[:most], *([f"and {rest} other reasons like these"] if rest > 0 else [])]


def groups(matches: Iterable[Match]) -> list[Group]:
    """The dropped versions grouped by violated criteria, the fewest criteria first."""
    by_reasons: dict[int, list[Match]] = {}
    for match in matches:
        if match.reasons:
            by_reasons.setdefault(id(match.reasons), []).append(match)
    kinds: dict[tuple[str, ...], list[Match]] = {}
    for alike in by_reasons.values():
        kinds.setdefault(tuple(reason.fact for reason in alike[0].reasons), []).extend(alike)
    return [Group(facts, tuple(kinds[facts])) for facts in sorted(kinds, key=_distance)]


def closest(matches: Iterable[Match], most: int = 3) -> list[Match]:
    """The dropped versions with the fewest reasons; versions of another name or model come last."""
    dropped = [match for match in matches if match.reasons]
    distance_of = {
        id(match.reasons): _distance([reason.fact for reason in match.reasons]) for match in _alike(dropped)
    }
    return nsmallest(most, dropped, key=lambda match: distance_of[id(match.reasons)])


def _alike(matches: Iterable[Match]) -> list[Match]:
    """One match per set of reasons; versions with the same facts share one set."""
    # By identity: thousands of versions share a few sets, whose texts need not be compared.
    return list({id(match.reasons): match for match in matches}.values())


def _distance(facts: Sequence[str]) -> tuple[int, int]:
    """Sort key of violated criteria: a wrong name or model is the largest distance."""
    return (any(fact in IDENTITY for fact in facts), len(facts))
