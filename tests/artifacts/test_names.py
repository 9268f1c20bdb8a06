"""Which names, aliases and stores a registry refuses."""

import dataclasses
from pathlib import Path

import pytest

from artifacts.errors import NameRefused, StoreMismatch
from artifacts.registry.registry import Binding, Registry, open_registry
from tests.artifacts.governing import FAST, ONE, version, waiver


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../up",
        "a/../b",
        "/abs",
        "a//b",
        "a b",
        "a\n",
        "a\x1b[2J",
        "a@b",
        "a:1",
        "-rf",
        "na\u0131ve",
        "x" * 201,
        "a/",
    ],
)
def test_hostile_names_are_refused_before_anything_is_made(tmp_path: Path, name: str):
    with pytest.raises(NameRefused, match="is not allowed; use at most 200 letters"):
        open_registry(tmp_path / "r.db").publish(dataclasses.replace(ONE, name=name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alias", ["", "1", "pr od", "prod\n", "a/b", "a@b", "\x00", "x" * 65])
def test_hostile_aliases_are_refused(tmp_path: Path, alias: str):
    registry = open_registry(tmp_path / "r.db")
    registry.publish(ONE)
    asks = (
        lambda: registry.promote("demo/fp8", alias, to=1, expect=None),
        lambda: registry.publish(version(2, alias=alias)),
        lambda: registry.set_policy(alias, FAST),
        lambda: registry.waive(waiver(alias=alias)),
    )
    for ask in asks:
        with pytest.raises(NameRefused, match=r"alias .* is not allowed"):
            ask()
    assert registry.counts() == {
        "names": 1,
        "versions": 1,
        "aliases": 0,
        "policies": 0,
        "waivers": 0,
        "events": 1,
    }


def test_names_that_differ_only_by_case_are_refused(registry: Registry):
    with pytest.raises(
        NameRefused, match="name 'Demo/FP8' differs from 'demo/fp8' only by case; use one of them"
    ):
        registry.publish(dataclasses.replace(ONE, name="Demo/FP8"))
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    with pytest.raises(NameRefused, match="alias 'Prod' differs from 'prod' only by case"):
        registry.promote("demo/fp8", "Prod", to=1, expect=None)
    assert (registry.names(), registry.aliases("demo/fp8")) == (["demo/fp8"], {"prod": 1})


def test_a_registry_is_of_one_store(registry: Registry):
    mine, other = Binding("a" * 32, "/stores/a"), Binding("b" * 32, "/stores/b")
    registry.require_store(other)  # nobody has said which
    assert registry.publish(version(5), store=mine) == 4
    assert registry.publish(version(6), store=Binding(mine.id, "/moved/a")) == 5
    with pytest.raises(
        StoreMismatch, match=r"names artifacts of store a{32} \(first at /stores/a\), and this is store b{32}"
    ):
        registry.publish(version(7), store=other)
    with pytest.raises(StoreMismatch):
        registry.require_store(other)
    assert (registry.bound(), registry.counts()["versions"]) == (mine, 5)
