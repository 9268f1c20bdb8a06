"""What registries remember, on both databases: how aliases went back, events, reasons said once."""

import dataclasses

import pytest
from sqlalchemy import update

from artifacts.errors import AliasMoved, NotFound, PolicyRefused
from artifacts.registry import tables
from artifacts.registry.registry import Registry
from artifacts.registry.telling import describe_event
from tests.artifacts.governing import FAST, ONE, change


def test_rollbacks_go_back_the_way_that_was_come(registry: Registry):
    for to, expect in ((1, None), (2, 1), (3, 2)):
        registry.promote("demo/fp8", "prod", to=to, expect=expect)
    assert [registry.rollback("demo/fp8", "prod").now for _ in range(2)] == [2, 1]
    with pytest.raises(NotFound, match="cannot go back to an earlier version; before version 1 it was at no"):
        registry.rollback("demo/fp8", "prod")
    registry.promote("demo/fp8", "prod", to=3, expect=1)
    move = registry.rollback("demo/fp8", "prod")
    assert (move.was, move.now, move.rolled_back, move.alias) == (3, 1, True, "prod")
    moves = registry.history("demo/fp8", "prod")
    assert [(one.was, one.now) for one in moves] == [
        (None, 1),
        (1, 2),
        (2, 3),
        (3, 2),
        (2, 1),
        (1, 3),
        (3, 1),
    ]
    assert describe_event(registry.events("demo/fp8")[-1]) == "@prod rolled back from version 3 to version 1"


def test_a_rollback_goes_to_a_version_where_the_alias_was_and_expects(registry: Registry):
    for to, expect in ((1, None), (2, 1), (3, 2)):
        registry.promote("demo/fp8", "prod", to=to, expect=expect)
    with pytest.raises(AliasMoved, match="is at version 3, not version 2"):
        registry.rollback("demo/fp8", "prod", expect=2)
    with pytest.raises(NotFound, match="cannot go back to version 7; before version 3 it was at 1, 2"):
        registry.rollback("demo/fp8", "prod", to=7)
    with pytest.raises(NotFound, match="demo/fp8 has no alias @nope"):
        registry.rollback("demo/fp8", "nope")
    assert registry.rollback("demo/fp8", "prod", to=1, expect=3).now == 1


def test_a_rollback_passes_over_what_gc_took(registry: Registry, registry_url: str):
    for to, expect in ((1, None), (2, 1), (3, 2)):
        registry.promote("demo/fp8", "prod", to=to, expect=expect)
    gone = (
        update(tables.version)
        .where(tables.version.c.number == 2)
        .values(collected_at="2026-05-01T00:00:00+00:00")
    )
    change(registry_url, gone)
    assert registry.rollback("demo/fp8", "prod").now == 1
    with pytest.raises(PolicyRefused, match="present: gc removed its files on 2026-05-01"):
        registry.promote("demo/fp8", "prod", to=2, expect=1)


def test_no_policy_stands_in_the_way_of_a_rollback_and_the_log_says_what_it_thinks(registry: Registry):
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    registry.promote("demo/fp8", "prod", to=2, expect=1)
    registry.set_policy("prod", FAST)
    registry.rollback("demo/fp8", "prod")
    said = describe_event(registry.events("demo/fp8")[-1])
    assert said.endswith(
        "version 1, which its policy would refuse: metrics: tokens_per_s is 100, less than 200"
    )


def test_events_of_all_names_are_read_in_order_and_the_newest(registry: Registry):
    registry.publish(dataclasses.replace(ONE, name="demo/int8"))
    registry.set_policy("prod", FAST)
    events = registry.events()
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert [(event.name, event.kind) for event in registry.events(newest=2)] == [
        ("demo/int8", "published"),
        ("", "policy_set"),
    ]
    assert describe_event(events[-1]) == "policy of @prod: verdict PASS; metrics tokens_per_s >= 200"


def test_a_reason_to_rebuild_is_said_once(registry: Registry):
    registry.rebuild_needed("demo/fp8", 1, ["newer commit", "newer driver"])
    registry.rebuild_needed("demo/fp8", 1, ["newer driver", "old gate data"])
    registry.rebuild_needed("demo/fp8", 1, ["newer commit"])
    registry.rebuild_needed("demo/fp8", 2, ["newer commit"])
    assert [describe_event(event) for event in registry.events("demo/fp8")[3:]] == [
        "version 1 should be built again: newer commit; newer driver",
        "version 1 should be built again: old gate data",
        "version 2 should be built again: newer commit",
    ]
