"""Which versions suit a request, which do not and why, and in what order to try them; pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

from artifacts.finding.listed import Listed, taken
from artifacts.finding.needs import FACTS, Facts
from artifacts.version import VersionRecord

RANKS = {
    "speed": ("tokens_per_s", -1.0),
    "per_user": ("tokens_per_s_per_user", -1.0),
    "first_token": ("ttft_ms_p95", 1.0),
    "accuracy": ("kl", 1.0),
    "size": ("size_bytes", 1.0),
}
"""Order of the versions that suit: by this metric, times this, lowest first; unmeasured ones last."""

AT_LEAST = frozenset({"tokens_per_s", "tokens_per_s_per_user", "top1_agreement"})
AT_MOST = frozenset(
    {"ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95", "kl", "perplexity_ratio", "size_bytes"}
)
"""Metrics that a service level bounds, each from its side; `metric@batch` is the one at that batch size."""

CHECKPOINT = "checkpoint"
"""Backend of imported checkpoints, which nothing serves; they are found by who asks for this backend."""

IS_CHECKPOINT = "it is a checkpoint: build an engine of it"

Version = Listed | VersionRecord


class Reason(NamedTuple):
    """Why a version does not suit."""

    fact: str
    """What was wanted: a key of `WANTED`."""
    text: str


class Match(NamedTuple):
    """A version, and every reason why it does not suit; none when it does."""

    record: Version
    reasons: tuple[Reason, ...]

    @property
    def dropped(self) -> tuple[str, ...]:
        """The reasons in words."""
        return tuple(reason.text for reason in self.reasons)


def match(records: Iterable[Version], criteria: Mapping[str, Any], rank: str = "speed") -> list[Match]:
    """Every version: first those that suit, best first, then the dropped ones with their reasons.

    `WANTED` lists what can be asked for; anything else, or another rank, is a ValueError. A version of
    another name or model is dropped for that alone.
    """
    check(criteria, rank)
    judge = Judge(criteria)
    metric, sign = RANKS[rank]
    ranked = []
    for record in records:
        reasons, value = judge.reasons(record), record.metric(metric)
        score = inf if value is None else sign * value
        ranked.append((len(reasons), score, record.name, -record.number, Match(record, reasons)))
    ranked.sort(key=itemgetter(0, 1, 2, 3))
    return [entry[-1] for entry in ranked]


def check(criteria: Mapping[str, Any], rank: str = "speed") -> None:
    """Refuses, as a ValueError, what nobody can be asked for."""
    unknown = sorted(criteria.keys() - WANTED)
    if unknown:
        raise ValueError(f"unknown fact {unknown[0]!r}; have {', '.join(WANTED)}")
    if rank not in RANKS:
        raise ValueError(f"unknown rank {rank!r}; have {', '.join(RANKS)}")
    for name in criteria.get("slo", {}):
        if name.partition("@")[0] not in AT_LEAST | AT_MOST:
            raise ValueError(f"unknown metric {name!r}; have {', '.join(sorted(AT_LEAST | AT_MOST))}")


class Judge:
    """Reasons against versions, worked out once for each distinct set of facts."""

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._identity = {fact: want for fact, want in criteria.items() if fact in IDENTITY}
        self._wanted = {fact: want for fact, want in criteria.items() if fact in FACTS}
        self._slo: Mapping[str, float] = criteria.get("slo", {})
        self._known: dict[int, tuple[Facts, tuple[Reason, ...]]] = {}

    def reasons(self, record: Version) -> tuple[Reason, ...]:
        """Every reason against a version."""
        for fact, want in self._identity.items():
            text = IDENTITY[fact](record, want)
            if text is not None:
                return (Reason(fact, text),)
        return (*self.by_facts(record.facts), *self.by_state(record))

    def by_facts(self, facts: Facts) -> tuple[Reason, ...]:
        """Reasons against every version with these facts."""
        cached = self._known.get(id(facts))
        if cached is None and facts.get("backend") == CHECKPOINT != self._wanted.get("backend"):
            cached = self._known[id(facts)] = (facts, (Reason("kind", IS_CHECKPOINT),))
        if cached is None:
            reasons = (
                Reason(fact, text)
                for fact, want in self._wanted.items()
                if (text := FACTS[fact](fact, facts, want)) is not None
            )
            cached = self._known[id(facts)] = (
                facts,
                tuple(reasons),
            )  # facts stay, so that no other gets the id
        return cached[1]

    def by_state(self, record: Version) -> tuple[Reason, ...]:
        """Reasons against this very version: its bytes are gone, or what was measured is too little."""
        collected = taken(record)
        reasons = (Reason("bytes", collected),) if collected is not None else ()
        return (*reasons, *slo_reasons(record, self._slo))


def slo_reasons(record: Version, slo: Mapping[str, float]) -> list[Reason]:
    """Why the measurements of a version miss a service level."""
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
    """The whole name of the model, or what comes after the last slash, maybe with `@` and a commit.

    Case does not matter on the hub. Of a `Listed`, the commit is the query's to compare.
    """
    repo, _, commit = want.partition("@")
    model, repo_folded = record.model.casefold(), repo.casefold()
    if model != repo_folded and model.rpartition("/")[2] != repo_folded:
        return f"its model is {record.model or 'not recorded'!r}, not {repo!r}"
    revision = record.source.get("revision") if commit and isinstance(record, VersionRecord) else commit
    return None if revision == commit else f"its model is at commit {revision}, not {commit}"


IDENTITY: dict[str, Callable[[Version, str], str | None]] = {"name": _name, "model": _model}
"""What a version is of; where that is another thing, no other reason is of interest."""

WANTED = (*IDENTITY, *FACTS, "slo")
"""All that can be asked for; `slo` is metric -> bound."""


@dataclass(frozen=True, slots=True)
class Group:
    """Versions that were dropped for the same kinds of reasons."""

    facts: tuple[str, ...]
    """What they do not suit."""
    matches: tuple[Match, ...]

    def texts(self, most: int = 3) -> list[str]:
        """Their reasons, each once; after the first `most`, how many others there are."""
        texts = dict.fromkeys("; ".join(match.dropped) for match in _alike(self.matches))
        rest = len(texts) - most
        return [*list(texts)[:most], *([f"and {rest} other reasons like these"] if rest > 0 else [])]


def groups(matches: Iterable[Match]) -> list[Group]:
    """The dropped versions, grouped by what they do not suit; those with fewest reasons first."""
    by_reasons: dict[int, list[Match]] = {}
    for match in matches:
        if match.reasons:
            by_reasons.setdefault(id(match.reasons), []).append(match)
    kinds: dict[tuple[str, ...], list[Match]] = {}
    for alike in by_reasons.values():
        kinds.setdefault(tuple(reason.fact for reason in alike[0].reasons), []).extend(alike)
    return [Group(facts, tuple(kinds[facts])) for facts in sorted(kinds, key=_distance)]


def closest(matches: Iterable[Match], most: int = 3) -> list[Match]:
    """The dropped versions that lack least: fewest reasons, those of the wanted name and model first."""
    dropped = [match for match in matches if match.reasons]
    distance_of = {
        id(match.reasons): _distance([reason.fact for reason in match.reasons]) for match in _alike(dropped)
    }
    return nsmallest(most, dropped, key=lambda match: distance_of[id(match.reasons)])


def _alike(matches: Iterable[Match]) -> list[Match]:
    """One match for each set of reasons; versions with the same facts share theirs."""
    return list({id(match.reasons): match for match in matches}.values())


def _distance(facts: Sequence[str]) -> tuple[int, int]:
    """Another model or name is further away than anything else."""
    return (any(fact in IDENTITY for fact in facts), len(facts))
