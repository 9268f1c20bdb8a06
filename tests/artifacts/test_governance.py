"""Promotions before policies, signatures and waivers, on both databases."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from artifacts.errors import AliasMoved, NotFound, NotPublishable, PolicyInvalid, PolicyRefused
from artifacts.registry import tables
from artifacts.registry.registry import Policy, Registry, open_registry
from artifacts.registry.telling import describe_event
from artifacts.version import IMPORTED
from tests.artifacts.governing import FAST, ONE, change, version, waiver

KEY = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"


def kinds(registry: Registry) -> list[str]:
    return [event.kind for event in registry.events("demo/fp8")][3:]


def test_a_promotion_that_the_policy_refuses_moves_nothing_and_is_remembered(registry: Registry):
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    registry.set_policy("prod", FAST)
    with pytest.raises(PolicyRefused) as caught:
        registry.promote("demo/fp8", "prod", to=2, expect=1)
    assert str(caught.value) == (
        "demo/fp8@prod stays at version 1: version 2 violates its policy\n"
        "  metrics: tokens_per_s is 100, less than 200"
    )
    assert (
        "enginery registry waive demo/fp8:2 prod metrics --reason WHY --for 7d" in caught.value.__notes__[0]
    )
    assert registry.aliases("demo/fp8") == {"prod": 1}
    last = registry.events("demo/fp8")[-1]
    why = "tokens_per_s is 100, less than 200"
    assert (last.kind, last.detail) == (
        "refused",
        {"alias": "prod", "at": 1, "number": 2, "broken": [{"rule": "metrics", "why": why}]},
    )
    assert describe_event(last) == f"@prod refused version 2: metrics: {why}"
    registry.promote("demo/fp8", "staging", to=2, expect=None)  # another alias has another policy
    registry.set_policy("prod", None)
    registry.promote("demo/fp8", "prod", to=2, expect=1)


def test_who_lost_the_race_is_told_so_and_not_judged(registry: Registry):
    registry.set_policy("prod", FAST)
    with pytest.raises(AliasMoved):
        registry.promote("demo/fp8", "prod", to=2, expect=1)
    assert kinds(registry) == []


def test_a_publication_that_the_alias_refuses_is_published_and_asks_again_when_repeated(registry: Registry):
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    registry.set_policy("prod", FAST)
    for _ in range(2):
        with pytest.raises(
            PolicyRefused, match="demo/fp8@prod stays at version 1: version 4 violates"
        ) as caught:
            registry.publish(version(4, alias="prod"))
        assert caught.value.__notes__[-1] == "demo/fp8:4 is published; nothing has to be built again"
    assert [record.number for record in registry.versions("demo/fp8")] == [1, 2, 3, 4]
    registry.waive(waiver(4))
    assert registry.publish(version(4, alias="prod")) == 4
    assert registry.aliases("demo/fp8") == {"prod": 4}
    registry.rollback("demo/fp8", "prod")
    assert registry.publish(version(4, alias="prod")) == 4  # it was there; that somebody took it back counts
    assert registry.aliases("demo/fp8") == {"prod": 1}
    assert kinds(registry) == [
        "alias_moved", "published", "refused", "refused", "waived", "alias_moved", "rolled_back",
    ]  # fmt: skip


def test_a_waiver_lets_one_version_pass_one_alias_for_a_time_and_all_see_it(registry: Registry):
    registry.set_policy("prod", FAST)
    made = registry.waive(waiver(2))
    assert registry.waivers() == registry.waivers("demo/fp8") == [made]
    registry.promote("demo/fp8", "prod", to=2, expect=None)
    with pytest.raises(PolicyRefused):
        registry.promote("demo/fp8", "prod", to=3, expect=2)
    (move,) = registry.history("demo/fp8", "prod")
    assert [(one["rule"], one["reason"], one["waiver"]) for one in move.waived] == [
        ("metrics", "agreed", made.id)
    ]
    (standing,) = registry.standings("demo/fp8")
    assert (standing.number, standing.judgement.allowed, standing.judgement.waived[0][1]) == (2, True, made)
    assert registry.end_waiver(made.id).until <= datetime.now(UTC)
    assert registry.waivers() == []
    assert [one.id for one in registry.waivers(ended=True)] == [made.id]
    assert [one.rule for one in registry.standings()[0].judgement.broken] == ["metrics"]
    with pytest.raises(NotFound, match=f"no waiver {made.id} is open"):
        registry.end_waiver(made.id)


def test_a_waiver_ends_by_itself(registry: Registry, registry_url: str):
    registry.set_policy("prod", FAST)
    registry.waive(waiver(1))
    over = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    change(registry_url, update(tables.waiver).values(until=over))
    assert registry.waivers() == []
    with pytest.raises(PolicyRefused):
        registry.promote("demo/fp8", "prod", to=1, expect=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "present"}, "rule 'present' cannot be waived; have verdict, max_age_days"),
        ({"rule": "no_open_waivers"}, "cannot be waived"),
        ({"reason": "  "}, "reason '  ' is invalid; give 1 to 1000 characters"),
        ({"reason": "red\x1b[31m"}, r"reason 'red\\x1b\[31m' is invalid"),
        ({"reason": "x" * 1001}, "is invalid"),
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "a waiver until 2020-01-01 .* is over"),
        ({"until": datetime(2999, 1, 1)}, "give a later moment, with its time zone"),  # noqa: DTZ001 on purpose
    ],
)
def test_waivers_that_nobody_could_answer_for_are_refused(tmp_path: Path, changes: dict[str, Any], said: str):
    registry = open_registry(tmp_path / "registry.db")
    registry.publish(ONE)
    with pytest.raises(PolicyInvalid, match=said):
        registry.waive(waiver(**changes))
    assert registry.waivers(ended=True) == []


def test_waivers_are_of_versions_that_are_there(registry: Registry, tmp_path: Path):
    with pytest.raises(NotFound, match="no version demo/fp8:9"):
        registry.waive(waiver(9))
    none = open_registry(tmp_path / "none.db")
    for ask in (
        lambda: none.waive(waiver()),
        lambda: none.end_waiver(1),
        lambda: none.judge("demo/fp8", 1, "prod"),
    ):
        with pytest.raises(NotFound):
            ask()
    assert (none.waivers(), none.policies(), none.standings(), none.bound(), none.counts()) == (
        [],
        {},
        [],
        None,
        {},
    )
    assert not (tmp_path / "none.db").exists()


def test_a_waived_version_is_kept_from_an_alias_that_wants_none(registry: Registry):
    registry.waive(waiver(1))
    registry.set_policy("stable", Policy(no_open_waivers=True))
    with pytest.raises(PolicyRefused, match="no_open_waivers: 1 of its waivers is open"):
        registry.promote("demo/fp8", "stable", to=1, expect=None)
    registry.promote("demo/fp8", "stable", to=2, expect=None)


def test_a_signature_by_a_key_of_the_policy_is_asked_for(registry: Registry, registry_url: str):
    registry.set_policy("prod", Policy(signed_by=(KEY,)))
    with pytest.raises(PolicyRefused, match="signed_by: it has no good signature by the key required"):
        registry.promote("demo/fp8", "prod", to=1, expect=None)
    row = {"manifest_digest": "d" * 64, "signed_at": "2026-01-01T00:00:00+00:00", "signed_by": "me"}
    bad = insert(tables.signature).values(key_id="a", bundle=f"{'e' * 64} {KEY}", **row)
    good = insert(tables.signature).values(key_id="b", bundle=f"{'d' * 64} {KEY}", **row)
    change(registry_url, bad)
    with pytest.raises(PolicyRefused):
        registry.promote("demo/fp8", "prod", to=1, expect=None)
    change(registry_url, good)
    registry.promote("demo/fp8", "prod", to=1, expect=None)


def test_a_signature_that_does_not_hold_promotes_nothing_and_stops_no_rollback(
    registry: Registry, registry_url: str
):
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    registry.promote("demo/fp8", "prod", to=2, expect=1)
    registry.set_policy("prod", Policy(signed_by=(KEY,)))
    row = {"manifest_digest": "d" * 64, "signed_at": "2026-01-01T00:00:00+00:00", "signed_by": "me"}
    change(registry_url, insert(tables.signature).values(key_id="a", bundle=f"{'d' * 64} {KEY}", **row))
    plain = open_registry(registry_url)
    with pytest.raises(PolicyRefused, match="signed_by: "):
        plain.promote("demo/fp8", "prod", to=3, expect=2)
    assert (plain.rollback("demo/fp8", "prod").now, plain.aliases("demo/fp8")) == (1, {"prod": 1})


def test_an_engine_from_elsewhere_is_promoted_by_policy_or_waiver_only(registry: Registry):
    foreign = version(9, verdict="UNVERIFIED", origin=IMPORTED)
    assert registry.publish(foreign) == 4
    with pytest.raises(PolicyRefused, match="verdict: its verdict is UNVERIFIED, not PASS"):
        registry.promote("demo/fp8", "prod", to=4, expect=None)
    registry.set_policy("lab", Policy(verdict=("PASS", "UNVERIFIED")))
    registry.promote("demo/fp8", "lab", to=4, expect=None)
    registry.waive(waiver(4, rule="verdict"))
    registry.promote("demo/fp8", "prod", to=4, expect=None)
    for wrong in ({"verdict": "UNVERIFIED"}, {"verdict": "FAIL", "origin": IMPORTED}):
        with pytest.raises(
            NotPublishable, match="only engines with PASS are published, and imported engines with UNVERIFIED"
        ):
            registry.publish(version(10, **wrong))


def test_a_policy_of_a_later_version_is_not_guessed_at(registry: Registry, registry_url: str):
    registry.set_policy("prod", FAST)
    change(registry_url, update(tables.policy).values(rules={"phase_of_moon": "full"}))
    with pytest.raises(
        PolicyInvalid, match="the policy of @prod cannot be applied by this version: unknown rule"
    ):
        registry.promote("demo/fp8", "prod", to=1, expect=None)
