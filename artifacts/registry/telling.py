"""Describes events of the log in one line each."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from artifacts.digest import of_json
from artifacts.registry.event_details import (
    BrokenRule,
    CollectedDetail,
    JudgementDetail,
    MoveDetail,
    PolicyDetail,
    PublishedDetail,
    RebuildDetail,
    RefusedDetail,
    RuleValue,
    SignedDetail,
    WaiverDetail,
)
from artifacts.registry.remarks import KEY_CHARS
from artifacts.version import Event


def describe_event(event: Event) -> str:
    """One line about an event; for a kind or form unknown to this version, its detail as JSON."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):  # written by another version of enginery
        return DESCRIBERS[event.kind](event.detail)
    return f"{event.kind.replace('_', ' ')} {json.dumps(event.detail, sort_keys=True)}"


def _published(detail: PublishedDetail) -> str:
    return f"published version {detail['number']}, {detail['verdict']}, engine {detail['engine_key'][:12]}"


def _moved(detail: MoveDetail) -> str:
    was = f"from version {detail['was']} to" if detail["was"] else "at"
    return f"@{detail['alias']} {was} version {detail['now']}{_waived_suffix(detail)}"


def _rolled_back(detail: MoveDetail) -> str:
    text = f"@{detail['alias']} rolled back from version {detail['was']} to version {detail['now']}"
    objection = _reasons(detail["broken"]) if "broken" in detail else detail.get("not_judged")
    refusal = f", which its policy would refuse: {objection}" if objection else ""
    return f"{text}{refusal}{_waived_suffix(detail)}"


def _refused(detail: RefusedDetail) -> str:
    return f"@{detail['alias']} refused version {detail['number']}: {_reasons(detail['broken'])}"


def _waived(detail: WaiverDetail) -> str:
    subject = f"version {detail['number']}: {detail['rule']} for @{detail['alias']}"
    if detail.get("ended"):
        return f"waiver {detail['waiver']} of {subject} ended"
    until = detail["until"][:16].replace("T", " ")
    return f"waiver {detail['waiver']} of {subject} until {until}: {detail['reason']}"


def _policy_set(detail: PolicyDetail) -> str:
    if detail["rules"] is None:
        return f"policy of @{detail['alias']} removed"
    rules = [f"{rule} {describe_rule(value)}" for rule, value in detail["rules"].items()]
    return f"policy of @{detail['alias']}: {'; '.join(rules)}"


def describe_rule(value: RuleValue) -> str:
    """The requirement of a rule, from its JSON value; public keys as the beginning of their digest."""
    # `is`: 1 equals True, and is a number of days.
    if value is True:
        return "yes"
    if isinstance(value, list):
        # Only a key in PEM has line ends; other lists hold verdicts.
        return " or ".join(f"key {of_json(key)[:12]}" if "\n" in key else key for key in value)
    if isinstance(value, dict):
        signs = {"min": ">=", "max": "<="}
        bounds = [(name, signs[end], bound) for name, ends in value.items() for end, bound in ends.items()]
        return ", ".join(f"{name} {sign} {bound:g}" for name, sign, bound in bounds)
    return f"{value:g}"


def _rebuild_needed(detail: RebuildDetail) -> str:
    return f"version {detail['number']} should be built again: {'; '.join(detail['reasons'])}"


def _signed(detail: SignedDetail) -> str:
    subject = "how it was built" if detail["kind"] == "provenance" else "its files"
    return f"version {detail['number']}: {subject} signed, key {detail['key_id'][:KEY_CHARS]}"


def _collected(detail: CollectedDetail) -> str:
    return f"gc removed the files of version {detail['number']}, engine {detail['engine_key'][:12]}"


def _waived_suffix(detail: JudgementDetail) -> str:
    waived = [f"{waiver['rule']}: {waiver['reason']}" for waiver in detail.get("waived", ())]
    return f" (waived: {'; '.join(waived)})" if waived else ""


def _reasons(broken: list[BrokenRule]) -> str:
    return "; ".join(f"{violation['rule']}: {violation['why']}" for violation in broken)


DESCRIBERS: dict[str, Callable[[Any], str]] = {
    "published": _published,
    "alias_moved": _moved,
    "rolled_back": _rolled_back,
    "refused": _refused,
    "waived": _waived,
    "policy_set": _policy_set,
    "signed": _signed,
    "collected": _collected,
    "rebuild_needed": _rebuild_needed,
}
"""Kind of event -> the function that describes its detail; an event read from the log may have any."""
