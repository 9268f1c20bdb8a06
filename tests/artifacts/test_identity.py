"""What makes a version a new one: what was built and what judged it, and nothing else."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from artifacts.address import is_same
from artifacts.registry import tables
from artifacts.registry.identity import identity
from artifacts.registry.registry import open_registry
from tests.artifacts.governing import ONE, change

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "demo/fp8",
    "model": {"path": "../model"},
    "format": "fp8",
    "calibration": {"data": [{"path": "data/c.jsonl"}]},
    "gate": {"data": {"path": "data/gate.jsonl"}, "seq_len": 256, "limits": {"kl": 0.02}},
    "publish": {"alias": "candidate"},
}
LINEAGE = {"engine": "1" * 64, "evaluation": "e" * 64, "measurement": "a" * 64}
BUILT = dataclasses.replace(ONE, recipe=RECIPE, lineage=LINEAGE, alias="candidate")

SPELLED = [
    {"model": {"path": "/abs/model"}},
    {"gate": {**RECIPE["gate"], "data": {"path": "./data/../data/gate.jsonl"}}},
    {"calibration": {"data": [{"path": "elsewhere/c.jsonl"}]}},
    {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}},
    {"publish": {"alias": "candidate"}, "schedule": {"cron": "1 1 * * *"}},
]


def of(recipe=RECIPE, lineage=LINEAGE, content="d" * 64, verdict: str = "PASS", key="1" * 64) -> str:
    return identity(key, content, verdict, recipe, lineage)


@pytest.mark.parametrize("change_", SPELLED)
def test_another_spelling_or_schedule_is_no_other_version(registry_url: str, change_):
    assert of({**RECIPE, **change_}) == of()
    registry = open_registry(registry_url)
    again = dataclasses.replace(BUILT, recipe={**RECIPE, **change_}, metrics=[])
    assert [registry.publish(one) for one in (BUILT, again, BUILT)] == [1, 1, 1]
    assert [event.kind for event in registry.events("demo/fp8")] == ["published", "alias_moved"]


def test_what_was_built_scored_or_asked_for_tells_versions_apart():
    limits: dict[str, Any] = {"gate": {**RECIPE["gate"], "limits": {"kl": 0.03}}}
    others = [
        of(),
        of(key="2" * 64),
        of(content="c" * 64),
        of(verdict="UNVERIFIED"),
        of({**RECIPE, **limits}),
        of(lineage={**LINEAGE, "evaluation": "f" * 64}),
        of(lineage={}),
    ]
    assert len(set(others)) == len(others)
    assert of(lineage={**LINEAGE, "measurement": "b" * 64}) == of()  # timed on another host


@given(st.dictionaries(st.sampled_from(["name", "publish", "schedule", "version"]), st.text(), min_size=1))
def test_without_an_evaluation_the_recipe_counts_but_for_what_changes_nothing(other):
    assert of({**RECIPE, **other}, lineage={}) == of(lineage={})
    assert of({**RECIPE, "format": "none"}, lineage={}) != of(lineage={})


def test_an_unknown_content_may_be_any():
    assert is_same(None, "d" * 64)
    assert is_same("d" * 64, "d" * 64)
    assert not is_same("d" * 64, "c" * 64)


def test_a_version_of_another_content_is_another_version(registry_url: str):
    registry = open_registry(registry_url)
    other = dataclasses.replace(BUILT, manifest_digest="c" * 64)
    assert [registry.publish(one) for one in (BUILT, other, BUILT, other)] == [1, 2, 1, 2]
    assert registry.aliases("demo/fp8") == {"candidate": 2}
    assert registry.resolve("demo/fp8:1").address == f"{'1' * 64}.{'d' * 64}"


def test_versions_published_by_the_old_formula_are_recognised(registry_url: str):
    registry = open_registry(registry_url)
    registry.publish(BUILT)
    change(registry_url, update(tables.version).values(identity="0" * 64))
    assert registry.publish(BUILT) == 1
    change(registry_url, update(tables.version).values(manifest_digest=None))  # schema 1 did not have it
    assert registry.publish(BUILT) == 1
    assert registry.resolve("demo/fp8").address == "1" * 64


def test_a_run_that_publishes_nothing_new_leaves_an_alias_where_somebody_moved_it(registry_url: str):
    registry = open_registry(registry_url)
    for content in ("d" * 64, "c" * 64):
        registry.publish(dataclasses.replace(BUILT, manifest_digest=content))
    registry.rollback("demo/fp8", "candidate")
    for content in ("c" * 64, "d" * 64):
        registry.publish(dataclasses.replace(BUILT, manifest_digest=content))
    assert registry.aliases("demo/fp8") == {"candidate": 1}


def test_an_alias_that_was_never_asked_for_is_moved_once(registry_url: str):
    registry = open_registry(registry_url)
    registry.publish(BUILT)
    asked = dataclasses.replace(BUILT, alias="prod", recipe={**RECIPE, "publish": {"alias": "prod"}})
    assert registry.publish(asked) == 1
    assert registry.aliases("demo/fp8") == {"candidate": 1, "prod": 1}
    registry.publish(dataclasses.replace(asked, manifest_digest="c" * 64))
    registry.rollback("demo/fp8", "prod")
    registry.publish(dataclasses.replace(asked, manifest_digest="c" * 64))
    assert registry.aliases("demo/fp8")["prod"] == 1
