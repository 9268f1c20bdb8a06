"""Registries of released schemas, with what was in them, brought to the present one."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine.reflection import Inspector

from artifacts.errors import StoreUnusable
from artifacts.registry import tables
from artifacts.registry.database import connect, open_database
from artifacts.registry.registry import Publication, open_registry

SCHEMAS = Path(__file__).parent / "schemas"
RELEASED = range(1, tables.SCHEMA_VERSION)
"""For each, dumps of a registry that the released program wrote: `NUMBER.DIALECT.sql`."""


@pytest.fixture
def restored(database_url: str) -> Callable[[int], str]:
    """Fills the database with a dump of that schema; returns its URL."""

    def restore(number: int) -> str:
        if database_url.startswith("sqlite"):
            with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as db:
                db.executescript((SCHEMAS / f"{number}.sqlite.sql").read_text())
        else:
            with psycopg.connect(database_url.replace("+psycopg", "")) as db:
                db.execute((SCHEMAS / f"{number}.postgresql.sql").read_text())
        return database_url

    return restore


@pytest.fixture
def upgraded(restored: Callable[[int], str]) -> str:
    """The URL of a registry that was of schema 1."""
    url = restored(1)
    assert connect(url).upgrade() == (1, tables.SCHEMA_VERSION)
    return url


def test_every_released_schema_has_a_dump():
    dumps = {path.name for path in SCHEMAS.iterdir()}
    assert dumps == {f"{number}.{kind}.sql" for number in RELEASED for kind in ("sqlite", "postgresql")}


def anatomy(url: str) -> dict[str, object]:
    """Everything the database says of its tables, but for the order of columns."""
    engine = create_engine(url)
    with engine.connect() as db:
        there = inspect(db)
        found: dict[str, object] = {
            name: table_anatomy(there, name) for name in sorted(there.get_table_names())
        }
        guards = {
            "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
            "postgresql": "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        }
        found["guards"] = [tuple(row) for row in db.exec_driver_sql(guards[db.dialect.name])]
        if db.dialect.name == "sqlite":
            texts = db.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
            found["counting"] = sorted(name for name, text in texts if "AUTOINCREMENT" in text)
    engine.dispose()
    return found


def table_anatomy(there: Inspector, name: str) -> dict[str, object]:
    columns = {one["name"]: {**one, "type": str(one["type"])} for one in there.get_columns(name)}
    keys = sorted(there.get_foreign_keys(name), key=str)
    indexes = [one for one in there.get_indexes(name) if not one.get("duplicates_constraint")]
    return {
        "columns": dict(sorted(columns.items())),
        "primary": there.get_pk_constraint(name),
        "foreign": keys,
        "unique": sorted(there.get_unique_constraints(name), key=str),
        "indexes": sorted(indexes, key=str),
    }


@pytest.mark.parametrize("number", RELEASED)
def test_an_upgraded_registry_is_made_like_a_new_one(
    restored: Callable[[int], str], number: int, tmp_path: Path, request: pytest.FixtureRequest
):
    url = restored(number)
    connect(url).upgrade()
    found = anatomy(url)
    if url.startswith("sqlite"):
        fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
    else:
        with psycopg.connect(url.replace("+psycopg", "")) as db:
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")
        fresh = url
    connect(fresh).create()
    assert found == anatomy(fresh)


def test_what_was_published_is_there_after_the_upgrade(upgraded: str):
    registry = open_registry(upgraded)
    assert registry.names() == ["Demo/FP8", "demo/fp8", "demo/int4"]
    first, *_ = versions = registry.versions("demo/fp8")
    assert [record.number for record in versions] == [1, 2, 3]
    assert [record.engine_key for record in versions] == [f"{n:064x}" for n in (1, 2, 3)]
    assert (first.verdict, first.facts["format"], first.facts["weight_bytes_per_rank"]) == (
        "PASS",
        "fp8",
        [10, 11],
    )
    assert first.checks == [{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]
    assert [(m.name, m.value, m.low, m.high) for m in first.metrics] == [
        ("tokens_per_s", 813.5, None, None),
        ("kl", 0.01, 0.008, 0.012),
    ]
    assert first.model == "meta-llama/Llama-3.1-8B"
    assert first.source == {"repo": first.model, "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}
    assert (first.origin, first.published_by, first.manifest_digest) == ("built", "unknown", None)
    (local,) = registry.versions("demo/int4")
    assert (local.model, local.source) == ("checkpoints/tiny", {"path": "checkpoints/tiny"})
    assert local.facts["note"] == "na\u00efve \U0001f680 'quoted'"
    assert registry.aliases("demo/fp8") == {"candidate": 3, "prod": 2}


def test_aliases_know_since_when_they_point_there(upgraded: str):
    engine = create_engine(upgraded)
    with engine.connect() as db:
        moved = {row.alias: (row.moved_at, row.moved_by) for row in db.execute(tables.alias.select())}
    engine.dispose()
    events = open_registry(upgraded).events("demo/fp8")
    last = {event.detail["alias"]: event.at.isoformat() for event in events if event.kind == "alias_moved"}
    assert [event.seq for event in events] == list(range(1, 9))
    assert {event.by for event in events} == {"unknown"}
    assert {alias: at for alias, (at, _) in moved.items() if alias == "prod"} == {"prod": last["prod"]}
    assert {by for _, by in moved.values()} == {"unknown"}


@pytest.mark.slow
def test_versions_of_equal_facts_share_them(upgraded: str):
    engine = create_engine(upgraded)
    with engine.connect() as db:
        assert len(db.execute(tables.facts.select()).all()) == 2
    engine.dispose()


def test_an_upgraded_registry_goes_on(upgraded: str):
    registry = open_registry(upgraded)
    same = registry.versions("demo/fp8")[0]
    again = Publication(
        name="demo/fp8", engine_key=same.engine_key, recipe=same.recipe, verdict="PASS", facts=same.facts
    )
    assert registry.publish(again) == 1  # its identity is what it was
    one: dict[str, Any] = {"engine_key": "f" * 64, "recipe": {}, "verdict": "PASS", "facts": same.facts}
    assert registry.publish(Publication(name="demo/fp8", **one, alias="prod")) == 4
    assert registry.publish(Publication(name="Demo/FP8", **one)) == 2
    assert [event.seq for event in registry.events("demo/fp8")][-2:] == [12, 13]
    assert registry.aliases("demo/fp8") == {"candidate": 3, "prod": 4}


def test_an_older_schema_is_refused_with_the_command_that_upgrades_it(restored: Callable[[int], str]):
    said = r"has schema 1, and this version reads 3; bring it there with: enginery registry upgrade"
    url = restored(1)
    with pytest.raises(StoreUnusable, match=said):
        open_database(url)
    with pytest.raises(StoreUnusable, match=said):
        open_registry(url)


def test_upgrading_again_changes_nothing_and_nothing_is_no_registry(upgraded: str, tmp_path: Path):
    assert connect(upgraded).upgrade() == (3, 3)
    with pytest.raises(StoreUnusable, match="has no schema yet; `enginery registry init` makes it"):
        connect(tmp_path / "none.db").upgrade()


def test_an_upgrade_that_fails_leaves_the_registry_as_it_was(restored: Callable[[int], str]):
    url = restored(1)
    engine = create_engine(url)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE delivery (mine INTEGER)")  # the last table that is made is taken
    before = anatomy(url)
    with pytest.raises(Exception, match=re.compile("already exists|duplicate", re.IGNORECASE)):
        connect(url).upgrade()
    assert anatomy(url) == before
    assert connect(url).schema() == 1
    with engine.begin() as db:
        db.exec_driver_sql("DROP TABLE delivery")
    engine.dispose()
    assert connect(url).upgrade() == (1, 3)


def test_rows_that_point_nowhere_stop_an_upgrade(tmp_path: Path):
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((SCHEMAS / "1.sqlite.sql").read_text())
        db.execute("DELETE FROM version WHERE name = 'demo/int4'")
        db.commit()
    with pytest.raises(StoreUnusable, match=r"3 rows point at rows that are not there, the first in table"):
        connect(path).upgrade()
    assert connect(path).schema() == 1
