"""Lists and searches over many versions: the same answers as judging each version by itself."""

from pathlib import Path

import pytest

from artifacts.errors import NotFound
from artifacts.finding.listed import FIGURES, Listed
from artifacts.finding.match import RANKS, match
from artifacts.registry.registry import Metric, Publication, Registry, open_registry
from artifacts.version import VersionRecord
from tests.benchmarks.many_versions import fill

VERSIONS, NAMES = 60, 12


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """12 names with 5 versions each."""
    path = tmp_path_factory.mktemp("catalog") / "registry.db"
    fill(path, VERSIONS, NAMES)
    return open_registry(path)


@pytest.fixture(scope="module")
def every(registry: Registry) -> list[VersionRecord]:
    """All versions, each read whole."""
    return [record for name in registry.names() for record in registry.versions(name)]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"tp": 2},
        {"gpu": "h200", "sm": [90], "runtime": {"tensorrt_llm": "1.2.1"}},
        {"slo": {"ttft_ms_p95": 300.0, "tokens_per_s": 200.0}},
        {"model": "model3", "slo": {"kl": 0.03}},
        {"name": "team0/model0/build0", "format": "none"},
        {"memory_bytes": 1},
        {"model": "nonesuch"},
    ],
)
def test_a_search_finds_what_judging_every_version_finds(
    registry: Registry, every: list[VersionRecord], wanted, rank: str
):
    expected = [one for one in match(every, wanted, rank) if not one.reasons]
    found = registry.find(rank=rank, **wanted)
    suits = [one for one in found if not one.reasons]
    assert [one.record.reference for one in suits] == [one.record.reference for one in expected]
    for one, other in zip(suits, expected, strict=True):
        assert one.record.facts == other.record.facts
        assert [one.record.metric(name) for name in FIGURES] == [
            other.record.metric(name) for name in FIGURES
        ]


def test_postgresql_finds_and_lists_what_sqlite_does(registry: Registry, postgres_url: str):
    fill(postgres_url, VERSIONS, NAMES)
    other = open_registry(postgres_url)
    commit = "team/Model3@" + "0" * 40
    for wanted in ({}, {"tp": 2, "slo": {"kl": 0.05}}, {"model": commit}, {"model": "team/model%"}):
        assert other.find(limit=5, **wanted) == registry.find(limit=5, **wanted)
    assert (other.listed(limit=3), other.models()) == (registry.listed(limit=3), registry.models())
    assert other.resolve("team0/model0/build0@prod") == registry.resolve("team0/model0/build0@prod")


def test_dropped_versions_come_with_their_reasons_and_other_models_are_left_out(
    registry: Registry, every: list[VersionRecord]
):
    found = registry.find(model="model3", tp=2)
    assert {one.record.model for one in found} == {"team/model3"}
    expected = {one.record.reference: one.dropped for one in match(every, {"model": "model3", "tp": 2})}
    assert found
    assert all(one.dropped == expected[one.record.reference] for one in found)


def test_the_limit_bounds_versions_that_suit_and_no_others(registry: Registry):
    found = registry.find(tp=1, limit=3)
    every = registry.find(tp=1)
    assert [one.record.reference for one in found[:3]] == [one.record.reference for one in every[:3]]
    assert sum(not one.reasons for one in found) == 3
    assert sum(bool(one.reasons) for one in found) == sum(bool(one.reasons) for one in every) > 0


def test_a_wanted_commit_is_the_sources(registry: Registry):
    assert registry.find(model="team/model3@" + "0" * 40)
    assert registry.find(model="team/model3@" + "1" * 40) == []


@pytest.mark.parametrize("model", ["%", "team/model%", "_eam/model3", "model3' OR 1=1 --"])
def test_a_model_is_no_pattern(registry: Registry, model: str):
    assert registry.find(model=model) == []


def test_models_are_named_once(registry: Registry, every: list[VersionRecord]):
    assert registry.models() == sorted({record.model for record in every})


def test_without_a_name_the_newest_and_those_with_an_alias_are_listed(registry: Registry):
    found, count = registry.listed()
    assert count == len(found) == 2 * NAMES
    assert [one.number for one in found] == [4, 5] * NAMES
    assert [one.aliases for one in found[:2]] == [("prod",), ()]
    assert found == sorted(found, key=lambda one: (one.name, one.number))


def test_of_one_name_the_newest_are_listed_oldest_first(registry: Registry):
    found, count = registry.listed("team0/model0/build0", limit=2)
    assert ([one.number for one in found], count) == ([4, 5], 5)
    assert found[0].metric("kl") == registry.resolve("team0/model0/build0:4").metric("kl")
    assert registry.listed("nonesuch") == ([], 0)


def test_a_registry_that_does_not_exist_lists_and_finds_nothing(tmp_path: Path):
    registry = open_registry(tmp_path / "registry.db")
    assert (registry.listed(), registry.find(tp=2)) == (([], 0), [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="unknown fact 'colour'"):
        registry.find(colour="red")


def test_references_read_one_version_only(registry: Registry):
    newest = registry.resolve("team0/model0/build0")
    assert (newest.number, newest.aliases) == (5, ())
    assert registry.resolve("team0/model0/build0@prod").aliases == ("prod",)
    with pytest.raises(NotFound, match=r"team0/model0/build0 has versions 1 to 5 and @prod"):
        registry.resolve("team0/model0/build0:6")


def test_a_version_that_was_just_published_is_found_with_its_figures(tmp_path: Path):
    registry = open_registry(tmp_path / "registry.db")
    facts = {"backend": "aoti", "format": "fp8", "tp": 2}
    publication = Publication(
        name="demo/fp8",
        engine_key="1" * 64,
        recipe={"name": "demo/fp8"},
        verdict="PASS",
        facts=facts,
        metrics=[Metric("tokens_per_s", 10.0), Metric("tokens_per_s@1", 5.0)],
        model="a/b",
        alias="candidate",
    )
    registry.publish(publication)
    (found,) = registry.find(tp=2, slo={"tokens_per_s@1": 4.0})
    assert (found.record.reference, found.record.aliases) == ("demo/fp8:1", ("candidate",))
    assert isinstance(found.record, Listed)
    assert found.record.figures == {"tokens_per_s": 10.0, "tokens_per_s@1": 5.0}
    assert found.record.published_at == registry.resolve("demo/fp8").published_at
