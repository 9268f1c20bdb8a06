"""What the pages read: aliases and the way back, waivers, signatures, stored bytes, counts."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from artifacts.errors import AliasMoved, NotFound
from artifacts.registry.registry import Registry, open_registry
from artifacts.store.opening import open_store
from pipeline.pages.web.paged_lists import Wanted
from pipeline.pages.web.registry_view import AliasNow, Reading
from tests.pipeline import published
from tests.pipeline.published import NAME
from tests.present import present


def alias(reading: Reading, name: str) -> AliasNow:
    """One alias of the three versions."""
    (found,) = [one for one in reading.aliases(NAME) if one.alias == name]
    return found


def test_an_alias_says_where_it_is_since_when_by_whom_and_where_it_was(reading: Reading, registry: Registry):
    prod = alias(reading, "prod")
    moved = registry.events(NAME)[-1]
    assert (prod.number, prod.was, prod.back, prod.obstacle) == (2, 1, 1, "")
    assert (prod.moved_by, prod.collected) == (moved.by, False)
    assert abs((prod.moved_at - moved.at).total_seconds()) < 5
    assert [one.alias for one in reading.aliases(NAME)] == ["candidate", "prod"]
    assert reading.aliases("unknown") == []


def test_an_alias_that_was_nowhere_before_has_no_way_back(reading: Reading, registry: Registry):
    registry.promote(NAME, "fresh", to=1, expect=None)
    fresh = alias(reading, "fresh")
    assert (fresh.was, fresh.back, fresh.obstacle) == (
        None,
        None,
        "there is no version before this one to return to",
    )
    with pytest.raises(NotFound, match=f"{NAME}@fresh"):
        reading.rollback(NAME, "fresh", expect=1)


def test_a_version_whose_files_are_gone_is_passed_over(reading: Reading, file: Path):
    candidate = alias(reading, "candidate")
    assert (candidate.number, candidate.back) == (3, 2)
    published.collect(file, NAME, 2)
    assert alias(reading, "candidate").back == 1
    assert alias(reading, "prod").collected
    published.collect(file, NAME, 1)
    assert alias(reading, "candidate").back is None
    assert alias(reading, "candidate").obstacle == "the files of version 2 were collected"


def test_a_rollback_recorded_as_one_goes_back_along_the_way(reading: Reading, file: Path):
    detail = '{"alias": "candidate", "was": 3, "now": 2}'
    row = {
        "at": datetime.now(UTC).isoformat(),
        "name": NAME,
        "kind": "rolled_back",
        "by": "x",
        "detail": detail,
    }
    published.insert(file, "event", row)
    published.write(file, "UPDATE alias SET number = 2 WHERE alias = 'candidate'")
    candidate = alias(reading, "candidate")
    assert (candidate.was, candidate.back) == (3, 1), "not to 3, which was left for a reason"


def test_a_rollback_moves_only_what_is_where_it_is_expected(reading: Reading):
    with pytest.raises(AliasMoved, match="is at version 2, not version 3; check it"):
        reading.rollback(NAME, "prod", expect=3)
    with pytest.raises(AliasMoved, match="staging is at no version, not version 3"):
        reading.rollback(NAME, "staging", expect=3)
    assert reading.rollback(NAME, "prod", expect=2) == 1
    assert alias(reading, "prod").number == 1


def test_waivers_are_shown_open_or_not(reading: Reading, file: Path):
    published.waive(file, NAME, 2, days=2)
    published.waive(file, NAME, 2, days=-2)
    remarks = reading.card(f"{NAME}:2").remarks
    assert [one.is_open(remarks.now) for one in remarks.waivers] == [True, False]
    assert len(reading.open_waivers()) == len(reading.open_waivers(NAME)) == 1
    assert reading.open_waivers("other") == []
    assert [one.rule for one in alias(reading, "prod").waivers] == ["max_age_days"]
    assert [(one.number, one.waivers) for one in reading.versions(Wanted()).rows] == [(3, 0), (2, 1), (1, 0)]


def test_a_card_has_the_events_of_its_version_only(reading: Reading, file: Path, registry: Registry):
    record = registry.resolve(f"{NAME}:1")
    published.sign(file, present(record.manifest_digest))
    card = reading.card(f"{NAME}:1")
    assert [(one.kind, one.detail.get("now")) for one in card.events] == [
        ("published", None), ("alias_moved", 1), ("alias_moved", 2), ("alias_moved", 1), ("alias_moved", 2)
    ]  # fmt: skip
    assert [one.key_id for one in card.remarks.signatures] == ["key-of-ana"]
    assert reading.card(f"{NAME}:2").remarks.signatures == ()


def test_bytes_come_from_the_store_and_damage_is_said(tmp_path: Path, file: Path, registry: Registry):
    store = open_store(tmp_path / "store")
    record = registry.resolve(f"{NAME}:1")
    with store.write(record.lineage["source"], kind="source", step={}, host={}) as draft:
        (draft.path / "model.safetensors").write_bytes(b"x" * 500)
    reading = Reading(str(file), store)
    card = reading.card(f"{NAME}:1")
    assert (card.stored, card.problems) == ({"source": 500}, ())
    manifest = store.path(record.lineage["source"]) / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{}")
    card = reading.card(f"{NAME}:1")
    assert card.problems == ("the manifest of its source checkpoint is damaged in this server's store",)


def test_the_census_counts_what_there_is(reading: Reading, file: Path):
    published.collect(file, NAME, 1)
    published.imported(file, NAME, 3)
    published.waive(file, NAME, 2)
    census = reading.census(datetime.now(UTC))
    assert census.names == 1
    assert census.versions == {
        ("PASS", "built", False): 1,
        ("PASS", "built", True): 1,
        ("UNVERIFIED", "imported", False): 1,
    }
    assert census.events == {"published": 3, "alias_moved": 5}
    assert census.waivers_open == 1
    assert [(name, one, number, gone) for name, one, number, _, gone in census.aliases] == [
        (NAME, "candidate", 3, False),
        (NAME, "prod", 2, False),
    ]


def test_a_registry_that_is_not_there_yet_is_empty(tmp_path: Path):
    reading = Reading(str(tmp_path / "none.db"))
    reading.require()
    assert reading.engines() == (0, [])
    assert reading.versions(Wanted(text="x")).rows == []
    assert reading.events() == []
    assert reading.aliases("x") == []
    assert reading.census(datetime.now(UTC)).versions == {}
    assert reading.choices() == {"format": [], "backend": []}
    assert not (tmp_path / "none.db").exists()
    assert open_registry(tmp_path / "none.db").names() == []
