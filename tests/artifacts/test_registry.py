"""Versions, aliases, references and the log."""

import dataclasses
import math
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from artifacts.errors import AliasMoved, NotFound, NotPublishable, StoreUnknown, StoreUnusable
from artifacts.registry.database import connect
from artifacts.registry.registry import Metric, Publication, Registry, open_registry

FIRST = Publication(
    name="demo/fp8",
    alias="candidate",
    engine_key="1" * 64,
    recipe={"name": "demo/fp8", "engine": {"tp": 2}},
    lineage={"source": "2" * 64, "engine": "1" * 64},
    verdict="PASS",
    checks=[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}],
    metrics=[Metric("tokens_per_s", 812.5), Metric("kl", 0.01, 0.008, 0.012)],
    facts={"backend": "aoti", "format": "fp8", "tp": 2},
)
SECOND = dataclasses.replace(FIRST, engine_key="3" * 64)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path / "sub" / "registry.db")


@pytest.fixture
def either(registry_url: str) -> Registry:
    """A registry on each kind of database."""
    return open_registry(registry_url)


def test_what_is_published_is_found_whole(either: Registry):
    before = datetime.now(UTC)
    assert either.publish(FIRST) == 1
    record = either.resolve("demo/fp8")
    assert (record.name, record.number, record.engine_key, record.verdict) == (
        "demo/fp8",
        1,
        "1" * 64,
        "PASS",
    )
    assert (record.recipe, record.lineage, record.facts) == (FIRST.recipe, FIRST.lineage, FIRST.facts)
    assert (record.checks, record.metrics, record.aliases) == (
        FIRST.checks,
        tuple(FIRST.metrics),
        ("candidate",),
    )
    assert timedelta(0) <= record.published_at - before < timedelta(seconds=30)
    assert (record.metric("kl"), record.metric("perplexity_ratio")) == (0.01, None)
    assert record.as_dict()["metrics"][1] == {"name": "kl", "value": 0.01, "low": 0.008, "high": 0.012}
    assert record.as_dict()["published_at"] == record.published_at.isoformat()


def test_numbers_count_per_name_and_the_alias_follows(either: Registry):
    other = dataclasses.replace(FIRST, name="demo/int8", alias=None)
    assert [either.publish(one) for one in (FIRST, SECOND, other)] == [1, 2, 1]
    assert either.names() == ["demo/fp8", "demo/int8"]
    assert (either.aliases("demo/fp8"), either.aliases("demo/int8")) == ({"candidate": 2}, {})


def test_publishing_the_same_again_changes_nothing(either: Registry):
    assert either.publish(FIRST) == 1
    assert either.publish(SECOND) == 2
    events = either.events("demo/fp8")
    assert either.publish(dataclasses.replace(FIRST, metrics=[])) == 1
    assert either.events("demo/fp8") == events
    assert either.aliases("demo/fp8") == {"candidate": 2}
    assert either.publish(dataclasses.replace(FIRST, recipe={"name": "demo/fp8"})) == 3


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "pass", ""])
def test_only_a_pass_is_published(registry: Registry, tmp_path: Path, verdict: str):
    with pytest.raises(NotPublishable, match=f"demo/fp8: the verdict is {verdict}; only engines with PASS"):
        registry.publish(dataclasses.replace(FIRST, verdict=verdict))
    assert not (tmp_path / "sub").exists()


def test_what_was_imported_is_unverified_and_nothing_else(registry: Registry):
    imported = dataclasses.replace(FIRST, origin="imported", verdict="UNVERIFIED", alias=None)
    for verdict in ("PASS", "FAIL"):
        with pytest.raises(NotPublishable, match=f"the verdict is {verdict}"):
            registry.publish(dataclasses.replace(imported, verdict=verdict))
    with pytest.raises(NotPublishable, match="the verdict is UNVERIFIED"):
        registry.publish(dataclasses.replace(FIRST, verdict="UNVERIFIED"))
    assert registry.publish(imported) == 1
    record = registry.resolve("demo/fp8:1")
    assert (record.origin, record.verdict, record.aliases) == ("imported", "UNVERIFIED", ())


def test_a_publication_that_fails_halfway_leaves_no_trace(registry: Registry):
    registry.publish(FIRST)
    events = registry.events("demo/fp8")
    twice = dataclasses.replace(SECOND, metrics=[Metric("kl", 0.1), Metric("kl", 0.2)])
    with pytest.raises(Exception, match="UNIQUE constraint failed: metric"):
        registry.publish(twice)
    assert [record.number for record in registry.versions("demo/fp8")] == [1]
    assert registry.events("demo/fp8") == events
    assert registry.publish(SECOND) == 2  # the number came back


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_metrics_are_finite(number: float):
    with pytest.raises(ValueError, match=f"metric 'kl' is not finite: {number}"):
        Metric("kl", number)
    with pytest.raises(ValueError, match="metric 'kl' is not finite"):
        Metric("kl", 0.0, 0.0, number)


def test_references_resolve_to_alias_number_or_newest(either: Registry):
    either.publish(FIRST)
    either.publish(SECOND)
    either.promote("demo/fp8", "prod", to=1, expect=None)
    wanted = {"demo/fp8": 2, "demo/fp8:1": 1, "demo/fp8:2": 2, "demo/fp8@prod": 1, "demo/fp8@candidate": 2}
    assert {reference: either.resolve(reference).number for reference in wanted} == wanted


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("demo/fp9", r"no version of 'demo/fp9' in sqlite:.*; similar names: demo/fp8"),
        ("nothing/alike", r"no version of 'nothing/alike' .*; similar names: demo/fp8"),
        ("demo/fp8:2", r"no 'demo/fp8:2' in sqlite:.*; demo/fp8 has versions 1 to 1 and @candidate"),
        ("demo/fp8:0", r"no 'demo/fp8:0' in sqlite:.*"),
        ("demo/fp8@prod", r"no 'demo/fp8@prod' in sqlite:.*; demo/fp8 has versions 1 to 1 and @candidate"),
        ("demo/fp8@", "'demo/fp8@' is not a reference to a version; write NAME, NAME@ALIAS or NAME:NUMBER"),
        ("demo/fp8:one", "'demo/fp8:one' is not a reference to a version"),
        ("a@b:1", "'a@b:1' is not a reference to a version"),
        ("", "'' is not a reference to a version"),
    ],
)
def test_references_to_nothing_say_what_there_is(registry: Registry, reference: str, said: str):
    registry.publish(FIRST)
    with pytest.raises(NotFound, match=said):
        registry.resolve(reference)


def test_aliases_move_only_from_where_they_are_expected(either: Registry):
    either.publish(FIRST)
    either.publish(SECOND)
    either.promote("demo/fp8", "prod", to=1, expect=None)
    with pytest.raises(AliasMoved, match="demo/fp8@prod is at version 1, not no version; check it"):
        either.promote("demo/fp8", "prod", to=2, expect=None)
    with pytest.raises(AliasMoved, match="demo/fp8@prod is at version 1, not version 2"):
        either.promote("demo/fp8", "prod", to=2, expect=2)
    with pytest.raises(AliasMoved, match="demo/fp8@new is at no version, not version 1"):
        either.promote("demo/fp8", "new", to=2, expect=1)
    either.promote("demo/fp8", "prod", to=2, expect=1)
    assert either.aliases("demo/fp8") == {"candidate": 2, "prod": 2}


@pytest.mark.parametrize(("name", "to"), [("demo/fp8", 7), ("demo/other", 1)])
def test_aliases_point_at_versions_only(registry: Registry, name: str, to: int):
    registry.publish(FIRST)
    with pytest.raises(NotFound, match=f"{name}"):
        registry.promote(name, "prod", to=to, expect=None)
    assert registry.aliases(name) == ({"candidate": 1} if name == "demo/fp8" else {})


def test_every_change_is_logged_and_the_log_only_grows(registry: Registry, tmp_path: Path):
    registry.publish(FIRST)
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    assert [(event.seq, event.kind, event.detail) for event in registry.events("demo/fp8")] == [
        (1, "published", {"number": 1, "engine_key": "1" * 64, "verdict": "PASS"}),
        (2, "alias_moved", {"alias": "candidate", "was": None, "now": 1}),
        (3, "alias_moved", {"alias": "prod", "was": None, "now": 1}),
    ]
    with closing(sqlite3.connect(tmp_path / "sub" / "registry.db")) as db:
        for change in ("DELETE FROM event", "UPDATE event SET kind = 'nothing'"):
            with pytest.raises(sqlite3.IntegrityError, match="events are only added"):
                db.execute(change)


def test_a_servers_log_only_grows_too(postgres_url: str):
    connect(postgres_url).create()
    open_registry(postgres_url).publish(FIRST)
    for change in ("DELETE FROM event", "UPDATE event SET kind = 'nothing'", "TRUNCATE event"):
        with (
            pytest.raises(psycopg.errors.RaiseException, match="events are only added"),
            psycopg.connect(postgres_url.replace("+psycopg", "")) as db,
        ):
            db.execute(change)


def test_reading_makes_no_registry(registry: Registry, tmp_path: Path):
    assert (registry.names(), registry.find(), registry.events("x"), registry.aliases("x")) == (
        [],
        [],
        [],
        {},
    )
    with pytest.raises(NotFound, match=r"no version of 'x' .*; nothing is published here yet"):
        registry.versions("x")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_opened_before_the_first_publication_sees_it(registry: Registry, tmp_path: Path):
    open_registry(tmp_path / "sub" / "registry.db").publish(FIRST)
    assert registry.names() == ["demo/fp8"]


def test_a_registry_killed_while_it_was_made_is_made_again(tmp_path: Path):
    (tmp_path / "registry.db").touch()
    registry = open_registry(tmp_path / "registry.db")
    assert registry.names() == []
    assert registry.publish(FIRST) == 1


def test_a_newer_schema_is_refused_by_number(registry: Registry, tmp_path: Path):
    registry.publish(FIRST)
    with closing(sqlite3.connect(tmp_path / "sub" / "registry.db")) as db, db:
        db.execute("UPDATE schema_version SET number = 99")
    with pytest.raises(StoreUnusable, match="has schema 99, and this version reads 3"):
        open_registry(registry.url)


def test_a_file_that_is_no_registry_is_refused(tmp_path: Path):
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database at all, and longer than a header " * 100)
    with pytest.raises(StoreUnusable, match=r"registry\.db cannot be used: file is not a database"):
        open_registry(path)


@pytest.mark.parametrize("url", ["nope://x", "s3://bucket/registry.db", "oracle+nothing://x"])
def test_unknown_databases_are_refused(url: str):
    with pytest.raises(
        StoreUnknown, match=f"registry '{re.escape(url)}': .*give sqlite:///FILE or postgresql"
    ):
        open_registry(url)


def test_passwords_are_not_shown():
    with pytest.raises(StoreUnknown, match="needs the module MySQLdb") as caught:
        open_registry("mysql+mysqldb://me:secret@host/x")
    assert "secret" not in str(caught.value)
