"""Types of the details that events of each kind have, as this version writes them."""

from typing import NotRequired, TypedDict

RuleValue = bool | float | list[str] | dict[str, dict[str, float]]
"""A rule's value: a switch, a bound, public keys or verdicts, or bounds (`min`, `max`) by metric."""


class BrokenRule(TypedDict):
    """A violated rule of an alias's policy."""

    rule: str
    why: str


class WaivedRule(TypedDict):
    """A violated rule and the waiver that was open for it."""

    rule: str
    why: str
    waiver: int
    """Number of the waiver."""
    reason: str
    until: str


class JudgementDetail(TypedDict):
    """The part of a detail that a policy's judgement adds."""

    broken: NotRequired[list[BrokenRule]]
    waived: NotRequired[list[WaivedRule]]
    not_judged: NotRequired[str]
    """Why the policy could not be applied; a rollback goes on without it."""


class PublishedDetail(TypedDict):
    """Detail of `published`."""

    number: int
    engine_key: str
    verdict: str


class MoveDetail(JudgementDetail):
    """Detail of `alias_moved` and `rolled_back`."""

    alias: str
    was: int | None
    """None where the alias was new."""
    now: int


class RefusedDetail(JudgementDetail):
    """Detail of `refused`."""

    alias: str
    number: int


class WaiverDetail(TypedDict):
    """Detail of `waived`: a waiver was granted, or ended before its time."""

    waiver: int
    number: int
    rule: str
    alias: str
    until: str
    reason: str
    ended: NotRequired[bool]


class PolicyDetail(TypedDict):
    """Detail of `policy_set`."""

    alias: str
    rules: dict[str, RuleValue] | None
    """None where the policy was removed."""


class RebuildDetail(TypedDict):
    """Detail of `rebuild_needed`."""

    number: int
    reasons: list[str]


class SignedDetail(TypedDict):
    """Detail of `signed`."""

    number: int
    kind: str
    key_id: str


class CollectedDetail(TypedDict):
    """Detail of `collected`."""

    number: int
    engine_key: str
