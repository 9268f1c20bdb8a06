"""What the registry says of versions to keep, and what it remembers of those that gc took."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from artifacts.registry import retention, tables
from artifacts.registry.database import Database, connect, open_database
from artifacts.registry.registry import Publication, Registry, open_registry


@pytest.fixture
def registry(database_url: str) -> Registry:
    connect(database_url).create()
    return open_registry(database_url)


@pytest.fixture
def database(registry: Registry, database_url: str) -> Database:
    return open_database(database_url)


def publish(registry: Registry, number: int, **values: object) -> None:
    made: dict[str, Any] = {
        "name": "demo/fp8",
        "recipe": {"n": number},
        "verdict": "PASS",
        "facts": {"format": "fp8"},
    }
    registry.publish(Publication(engine_key=f"{number:064x}", **{**made, **values}))


def known(database: Database) -> dict[str, retention.RetainedVersion]:
    with database.reading() as db:
        return {one.reference: one for one in retention.read_retention(db).versions}


def test_a_version_knows_its_artifacts_its_aliases_and_its_last_pull(registry: Registry, database: Database):
    publish(registry, 1, lineage={"engine": "a" * 64, "source": "b" * 64}, alias="candidate")
    publish(registry, 2, alias="candidate")
    registry.promote("demo/fp8", "prod", to=2, expect=None)
    retention.record_pull(database, "demo/fp8", 1)
    retention.record_pull(database, "demo/fp8", 1)
    found = known(database)
    first, second = found["demo/fp8:1"], found["demo/fp8:2"]
    assert (first.engine_key, first.lineage) == (f"{1:064x}", ("a" * 64, "b" * 64))
    assert (first.aliases, second.aliases) == ((), ("candidate", "prod"))
    assert first.pulled_at is not None
    assert datetime.now(UTC) - first.pulled_at < timedelta(minutes=1)
    assert second.pulled_at is None
    with database.reading() as db:
        assert [row.times for row in db.execute(tables.pulled.select())] == [2]


def move(registry: Registry, *numbers: int) -> None:
    for number in numbers:
        registry.promote("demo/fp8", "prod", to=number, expect=registry.aliases("demo/fp8").get("prod"))


def roll_back(database: Database, number: int) -> None:
    with database.writing() as db:
        row = {"at": datetime.now(UTC).isoformat(), "name": "demo/fp8", "by": "x@y"}
        db.execute(
            insert(tables.log).values(
                **row, kind="rolled_back", detail={"alias": "prod", "was": None, "now": number}
            )
        )


def test_where_a_rollback_leads_is_known_also_after_rollbacks_and_collections(
    registry: Registry, database: Database
):
    for number in range(1, 5):
        publish(registry, number)

    def leads_to() -> list[str]:
        return [one.reference for one in known(database).values() if one.formerly]

    move(registry, 1)
    assert leads_to() == []
    move(registry, 3, 2)
    assert leads_to() == ["demo/fp8:3"]
    roll_back(database, 3)
    assert leads_to() == ["demo/fp8:1"]
    move(registry, 2, 4)
    assert leads_to() == ["demo/fp8:2"]
    with retention.deciding(database) as db:
        retention.collect(db, [one for one in retention.read_retention(db).versions if one.number == 2])
    assert leads_to() == ["demo/fp8:3"]


def test_a_collection_is_recorded_once_and_undone_by_building_again(registry: Registry, database: Database):
    publish(registry, 1)
    for _ in range(2):
        with retention.deciding(database) as db:
            retention.collect(db, retention.read_retention(db).versions)
    assert known(database)["demo/fp8:1"].collected
    assert registry.resolve("demo/fp8:1").collected_at is not None
    events = [event for event in registry.events("demo/fp8") if event.kind == "collected"]
    assert [event.detail for event in events] == [{"number": 1, "engine_key": f"{1:064x}"}]
    with database.writing() as db:
        retention.restore(db, "demo/fp8", 1)
    assert not known(database)["demo/fp8:1"].collected


def test_who_moves_an_alias_waits_until_it_is_decided_what_goes(registry: Registry, database: Database):
    for number in (1, 2):
        publish(registry, number)
    order = []

    def promote() -> None:
        registry.promote("demo/fp8", "prod", to=1, expect=None)
        order.append("promoted")

    mover = threading.Thread(target=promote)
    with retention.deciding(database) as db:
        mover.start()
        mover.join(0.3)
        assert [one.aliases for one in retention.read_retention(db).versions] == [(), ()]
        order.append("decided")
    mover.join()
    assert order == ["decided", "promoted"]
