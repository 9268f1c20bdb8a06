"""Rules of policies, one by one."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.errors import PolicyInvalid
from artifacts.registry.policy import JUDGES, READ, Bounds, Policy, Subject, broken, parse_policy

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"
GOOD = Subject(
    at=NOW,
    verdict="PASS",
    published_at=NOW - timedelta(days=3),
    collected_at=None,
    facts={"target": "h200", "gpus": [{"name": "NVIDIA H200", "sm": 90}]},
    metrics={"tokens_per_s": 900.0, "kl": 0.01},
    signed=lambda key: key == KEY,
    open_waivers=0,
)
STRICT = Policy(
    max_age_days=3,
    signed_by=("-----BEGIN PUBLIC KEY-----\nother", KEY),
    measured_on_target=True,
    metrics={"kl": Bounds(max=0.01), "tokens_per_s": Bounds(min=900.0, max=1000.0)},
    no_open_waivers=True,
)


NO_AGE = (
    "this clock was set back, or that one was ahead, so the age is unknown; if this clock is wrong, correct "
    "it; if it is right, wait until then, or `enginery registry waive NAME:NUMBER ALIAS max_age_days --reason WHY "
    "--for TIME` past then"
)


def test_a_version_that_is_all_that_is_asked_breaks_nothing():
    assert broken(STRICT, GOOD) == []
    assert broken(STRICT, dataclasses.replace(GOOD, newest=NOW + timedelta(minutes=4))) == []  # hosts differ


@pytest.mark.parametrize(
    ("rule", "change", "why"),
    [
        ("present", {"collected_at": NOW}, "gc removed its files on 2026-05-01; run its recipe again"),
        ("verdict", {"verdict": "UNVERIFIED"}, "its verdict is UNVERIFIED, not PASS"),
        (
            "max_age_days",
            {"published_at": NOW - timedelta(days=3, hours=12)},
            "it was published 3.5 days ago, and at most 3 are allowed",
        ),
        (
            "max_age_days",
            {"published_at": NOW + timedelta(days=2)},
            f"the clock says 2026-05-01 12:00, and the version's publication is of 2026-05-03 12:00 UTC: {NO_AGE}",
        ),
        (
            "max_age_days",
            {"newest": NOW + timedelta(hours=1), "newest_description": "event 7, of a by ana@ops,"},
            f"the clock says 2026-05-01 12:00, and event 7, of a by ana@ops, is of 2026-05-01 13:00 UTC: {NO_AGE}",
        ),
        (
            "signed_by",
            {"signed": lambda key: False},
            "it has no good signature by one of the 2 keys required",
        ),
        ("measured_on_target", {"metrics": {"kl": 0.0}}, "its speed was not measured"),
        (
            "measured_on_target",
            {"facts": {"target": "h20", "gpus": [{"name": "NVIDIA H200"}]}},
            "it was built for h20 and measured on NVIDIA H200",
        ),
        ("measured_on_target", {"facts": {"target": "h200"}}, "it was built for h200 and measured on no GPU"),
        (
            "measured_on_target",
            {"facts": {"target": "host", "measured": "without drafts"}},
            "it was measured without drafts, not as it is served",
        ),
        ("metrics", {"metrics": {"tokens_per_s": 950.0}}, "kl was not measured"),
        ("metrics", {"metrics": {"tokens_per_s": 950.0, "kl": 0.011}}, "kl is 0.011, more than 0.01"),
        ("metrics", {"metrics": {"tokens_per_s": 899.0, "kl": 0.01}}, "tokens_per_s is 899, less than 900"),
        ("no_open_waivers", {"open_waivers": 2}, "2 of its waivers are open"),
    ],
)
def test_each_rule_says_why_it_is_not_met(rule: str, change, why: str):
    found = {one.rule: one.why for one in broken(STRICT, dataclasses.replace(GOOD, **change))}
    assert found[rule] == why


@pytest.mark.parametrize(
    ("target", "gpu", "same"),
    [
        ("a100-40g", "NVIDIA A100-SXM4-40GB", True),
        ("a100-80g", "NVIDIA A100-SXM4-40GB", False),
        ("a10", "NVIDIA A100-SXM4-40GB", False),
        ("h100-pcie", "NVIDIA H100 PCIe", True),
        ("h100-nvl", "NVIDIA H100 PCIe", False),
        ("l4", "NVIDIA L40S", False),
        ("h100", "NVIDIA GH200 480GB", False),
    ],
)
def test_targets_are_words_of_a_gpus_name(target: str, gpu: str, same: bool):
    subject = dataclasses.replace(GOOD, facts={"target": target, "gpus": [{"name": gpu}]})
    assert (broken(Policy(measured_on_target=True), subject) == []) is same


def test_without_a_policy_only_a_pass_and_its_files_are_asked():
    old = dataclasses.replace(GOOD, published_at=NOW - timedelta(days=9999), metrics={}, open_waivers=3)
    assert broken(Policy(), old) == []
    bad = dataclasses.replace(old, verdict="UNVERIFIED", collected_at=NOW)
    assert [one.rule for one in broken(Policy(), bad)] == ["present", "verdict"]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POLICIES = st.builds(
    Policy,
    verdict=st.sampled_from([("PASS",), ("PASS", "UNVERIFIED")]),
    max_age_days=st.none() | st.floats(1e-3, 1e6),
    signed_by=st.sampled_from([(), (KEY,)]),
    measured_on_target=st.booleans(),
    metrics=st.dictionaries(
        st.text(),
        st.builds(Bounds, min=st.none() | NUMBERS, max=st.none()).filter(lambda b: b.min is not None),
    ),
    no_open_waivers=st.booleans(),
)


@given(POLICIES)
def test_a_policy_survives_being_written_and_read(policy):
    assert parse_policy(policy.as_dict()) == policy


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"max_age": 3}, "unknown rule 'max_age'; have verdict, max_age_days"),
        ({"max_age_days": 0}, "rule max_age_days: 0 is invalid; give a number above 0"),
        ({"max_age_days": True}, "rule max_age_days: True is invalid"),
        ({"max_age_days": float("nan")}, "rule max_age_days: nan is invalid"),
        ({"max_age_days": "3"}, "rule max_age_days: '3' is invalid"),
        ({"verdict": "FAIL"}, "rule verdict: 'FAIL' is invalid; have PASS, UNVERIFIED"),
        ({"verdict": []}, "rule verdict"),
        ({"signed_by": ["-----BEGIN PRIVATE KEY-----"]}, "give public keys in PEM"),
        ({"measured_on_target": 1}, "rule measured_on_target: 1 is invalid; give true or false"),
        ({"metrics": {"kl": {}}}, "give kl a finite min, max, or both in order"),
        ({"metrics": {"kl": {"min": 2, "max": 1}}}, "give kl a finite min"),
        ({"metrics": {"kl": {"under": 2}}}, "rule metrics"),
        ({"metrics": ["kl"]}, "rule metrics"),
    ],
)
def test_policies_that_cannot_be_meant_are_refused(document: dict[str, Any], said: str):
    with pytest.raises(PolicyInvalid, match=said):
        parse_policy(document)


def test_every_rule_that_can_be_set_is_judged():
    assert set(READ) == set(JUDGES) - {"present"} == {field.name for field in dataclasses.fields(Policy)}
