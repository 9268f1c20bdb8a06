"""Lists are searched, ordered and cut by the database."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.registry.registry import Registry, open_registry
from pipeline.pages.web.paged_lists import Wanted
from pipeline.pages.web.registry_view import Reading
from tests.pipeline import published
from tests.pipeline.published import FACTS, NAME, publication


@pytest.fixture
def many(reading: Reading, registry: Registry) -> Reading:
    """Three of one name, and one each of two other formats and models."""
    registry.publish(
        publication("qwen/int4_tp1", facts=FACTS | {"format": "int4_awq", "tp": 1}, model="acme/Qwen_100%")
    )
    registry.publish(publication("bare/none", metrics=[], checks=[], facts={}, model=""))
    return reading


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"text": "llama"}, [3, 2, 1]),
        ({"text": "TP2 Llama"}, [3, 2, 1]),
        ({"text": "llama tp9"}, []),
        ({"name": "llama/fp8_tp2"}, [3, 2, 1]),
        ({"name": "llama"}, []),
        ({"format": "int4_awq"}, [1]),
        ({"format": "int4_awq", "tp": 2}, []),
        ({"backend": "aoti", "tp": 2}, [3, 2, 1]),
        ({"text": "100%"}, [1]),
        ({"text": "100_"}, []),
        ({"text": "qwen_"}, [1]),
        ({"verdict": "UNVERIFIED"}, []),
        ({"origin": "built", "text": "bare"}, [1]),
    ],
)  # fmt: skip
def test_versions_are_narrowed(many: Reading, wanted: dict[str, Any], found: list[int]):
    page = many.versions(Wanted(**wanted))
    assert ([row.number for row in page.rows], page.total) == (found, len(found))


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("newest", "bare/none:1", f"{NAME}:1"),
        ("fastest", "qwen/int4_tp1:1", "bare/none:1"),
        ("smallest", "qwen/int4_tp1:1", "bare/none:1"),
        ("closest", f"{NAME}:3", "bare/none:1"),
    ],
)
def test_versions_are_ordered_and_those_without_the_metric_come_last(
    many: Reading, sort: Any, first: str, last: str
):
    rows = many.versions(Wanted(sort=sort)).rows
    assert (rows[0].reference, rows[-1].reference) == (first, last)


def test_pages_follow_one_another(many: Reading):
    pages = [many.versions(Wanted(), offset=at, limit=2) for at in (0, 2, 4, 6)]
    assert [len(page.rows) for page in pages] == [2, 2, 1, 0]
    assert {page.total for page in pages} == {5}
    assert len({row.reference for page in pages for row in page.rows}) == 5


def test_a_row_has_what_people_look_for(many: Reading):
    (row,) = many.versions(Wanted(text=NAME), limit=1).rows
    assert (row.format, row.backend, row.tp, row.pp, row.aliases) == ("fp8", "aoti", 2, 1, ("candidate",))
    assert (row.tokens_per_s, row.kl) == pytest.approx((400 / 3, 0.02 / 3))
    assert row.size_bytes == 6e6 + 3


def test_names_have_their_aliases_and_the_newest_comes_first(many: Reading):
    total, rows = many.engines()
    assert (total, [row.name for row in rows]) == (3, ["bare/none", "qwen/int4_tp1", NAME])
    assert (rows[-1].versions, rows[-1].newest, rows[-1].aliases) == (3, 3, {"candidate": 3, "prod": 2})
    assert many.engines("FP8")[0] == 1


def test_events_are_followed_forwards_and_read_backwards(many: Reading, registry: Registry):
    whole = registry.events(NAME)
    assert many.events(NAME) == whole[::-1]
    assert many.events(NAME, after=whole[2].seq, limit=2) == whole[3:5]
    assert many.events(NAME, before=whole[2].seq) == [whole[1], whole[0]]
    assert [one.name for one in many.events(limit=1)] == ["bare/none"]


def test_ten_thousand_versions_are_a_page_like_another(tmp_path: Path):
    """The list reads its page, whatever the number: no recipe and no metric of the others."""
    file = tmp_path / "registry.db"
    open_registry(file).publish(publication())
    published.write(
        file,
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO version "
        "SELECT name, i, engine_key, manifest_digest, model, origin, identity || i, verdict, recipe, lineage, "
        "checks, source, facts_id, published_at, published_by, collected_at, seal FROM version, n WHERE number = 1",
    )
    page = Reading(str(file)).versions(Wanted(text="llama", format="fp8", sort="fastest"), offset=9_990)
    assert (page.total, len(page.rows)) == (10_000, 10)
