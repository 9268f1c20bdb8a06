"""Kinds of events: when each is recorded, and an example of its detail as subscribers receive it."""

from typing import Any

KEY = "848d63c53dea2a4cf0b5b1c7f4f1f6c4a3e1f0d9c8b7a6958473625140f3e2d1"

EVENTS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "published": (
        "A version was registered.",
        {"number": 2, "verdict": "PASS", "engine_key": KEY},
        {},
    ),
    "alias_moved": (
        "An alias points at another version, or at its first one (`was` is null).",
        {"alias": "prod", "was": 1, "now": 2},
        {"waived": "the waivers that allowed it"},
    ),
    "rolled_back": (
        "An alias points back at a version where it has been. No policy is applied.",
        {"alias": "prod", "was": 2, "now": 1},
        {
            "broken": "the rules that the version violates",
            "waived": "the waivers that count",
            "not_judged": "why the policy could not be applied",
        },
    ),
    "refused": (
        "A promotion violated the policy of the alias.",
        {
            "alias": "prod",
            "at": 1,
            "number": 2,
            "broken": [{"rule": "metrics", "why": "perplexity_ratio is 1.02458, more than 1.02"}],
        },
        {"waived": "the waivers that count"},
    ),
    "waived": (
        "A rule was waived for a version, or the waiver was ended.",
        {
            "waiver": 1,
            "id": 1,
            "name": "demo/int4_awq_tp2",
            "number": 2,
            "alias": "prod",
            "rule": "metrics",
            "reason": "pilot of team A",
            "granted_at": "2026-11-30T12:00:00+00:00",
            "granted_by": "you@host",
            "until": "2026-12-07T12:00:00+00:00",
        },
        {"ended": "true where the waiver was ended"},
    ),
    "policy_set": (
        "The policy of an alias was set, or removed (`rules` is null). It belongs to no name.",
        {"alias": "prod", "rules": {"max_age_days": 30, "metrics": {"kl": {"max": 0.05}}}},
        {},
    ),
    "signed": (
        "A signature was added: of the files (`signature`), or of the provenance (`provenance`).",
        {"number": 2, "kind": "signature", "key_id": KEY},
        {},
    ),
    "collected": (
        "`enginery store gc` removed the files of a version.",
        {"number": 1, "engine_key": KEY},
        {},
    ),
    "rebuild_needed": (
        "`enginery registry stale` found new reasons to build a version again.",
        {"number": 2, "reasons": ["the gate's verdict is 31 days old, more than 30"]},
        {},
    ),
}
"""Kind -> when it is recorded, an example of its detail, fields that its detail may have beside these."""
