"""A registry read again: every changed digit is found and named, on both kinds of database."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Float, Integer, create_engine, delete, insert, select, text, update

from artifacts.errors import RowRefused
from artifacts.notify.outbox import Outbox
from artifacts.registry import log, retention, seals, tables
from artifacts.registry.audit import audit
from artifacts.registry.database import connect, insert_new
from artifacts.registry.endorsement import Endorsements
from artifacts.registry.publishing import Binding, bind, take_turn
from artifacts.registry.registry import open_registry, parse_policy
from artifacts.store.local import LocalStore
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature
from artifacts.version import Metric
from tests.artifacts.governing import ONE, version, waiver

AT = datetime(2026, 11, 20, tzinfo=UTC)
ODD_NUMBERS = [Metric("tiny", 5e-324), Metric("third", 1 / 3, -0.0, 1e308), Metric("whole", 7)]
"""Numbers that a database might give back otherwise than it got them."""


@pytest.fixture
def filled(registry_url: str) -> str:
    """The URL of a registry with rows in every table."""
    registry = open_registry(registry_url, verified=lambda bundle, digest, key: True)
    facts = {"format": "fp8", "note": "naïve \U0001f680", "z": 1, "a": [None, 1.0, {"é": 2**60}]}
    for n in (1, 2, 3):
        made = version(
            n,
            facts={**facts, "n": n},
            metrics=ODD_NUMBERS,
            alias="candidate",
            lineage={"engine": f"{n:064x}"},
        )
        registry.publish(made, store=Binding("s" * 64, "/srv/store"))
    registry.publish(version(9, name="bare", facts={}, metrics=(), manifest_digest=None))
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    registry.promote("demo/fp8", "prod", to=2, expect=1)
    registry.rollback("demo/fp8", "prod")
    registry.set_policy("prod", parse_policy({"max_age_days": 30}))
    registry.waive(waiver(number=2))
    registry.end_waiver(registry.waive(waiver(number=3)).id)
    kept = Endorsements(registry.database)
    said: dict[str, Any] = {"key_id": "k", "bundle": "{}", "signed_at": AT, "signed_by": "a@b"}
    kept.add_signature(Signature(manifest_digest="d" * 64, **said), f"{1:064x}")
    kept.add_attestation(Attestation(engine_key=f"{1:064x}", **said), "d" * 64)
    Outbox(registry.database).subscribe("command", "true")
    retention.record_pull(registry.database, "demo/fp8", 1)
    with registry.database.writing() as db:
        retention.collect(db, [one for one in retention.read_retention(db).versions if one.number == 3])
    return registry_url


def found(url: str) -> list[str]:
    return [str(one) for one in audit(connect(url)).findings]


def change(url: str, *statements) -> None:
    """What no command does: rows changed behind the registry's back, guards and all."""
    engine = create_engine(url)
    with engine.begin() as db:
        if url.startswith("sqlite"):
            for trigger in ("event_no_update", "event_no_delete"):
                db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger}")
        else:
            db.exec_driver_sql("SET session_replication_role = replica")  # triggers and foreign keys rest
        for statement in statements:
            db.execute(statement)
    engine.dispose()


def test_a_registry_that_only_commands_wrote_is_sound(filled: str):
    done = audit(connect(filled))
    assert done.findings == ()
    assert (done.versions, done.rows > 30) == (4, True)


def test_an_empty_registry_is_sound(registry_url: str):
    assert found(registry_url) == []


def changed(value, column):
    """Another value that the column may hold."""
    if isinstance(column.type, Integer):
        return value + 700
    if isinstance(column.type, Float):
        return (value or 0.0) + 0.25
    if isinstance(value, dict):
        return {**value, "one more": 1}
    if isinstance(value, list):
        return [*value, {"metric": "more"}]
    return "0" * 64 if value is None else f"{value[:-1]}{'1' if value[-1:] != '1' else '2'}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(table.name for table in seals.SEALED), "metric", "facts", "series"])
def test_a_flipped_character_in_any_column_is_found(filled: str, name: str):
    table = tables.METADATA.tables[name]
    key = [column.name for column in table.primary_key]
    engine = create_engine(filled)
    with engine.connect() as db:
        rows = [dict(row) for row in db.execute(select(table)).mappings()]
    engine.dispose()
    row = next((one for one in rows if (one.get("name"), one.get("number", 2)) == ("demo/fp8", 2)), rows[0])
    here = [table.c[one] == row[one] for one in key]
    seen = 0
    for column in table.c:
        if column.name in {*seals.LATER.get(name, ()), *(("folded",) if name == "series" else ())}:
            continue
        change(filled, update(table).where(*here).values({column.name: changed(row[column.name], column)}))
        assert found(filled), f"{name}.{column.name}"
        back = [
            table.c[one] == (changed(row[one], table.c[one]) if one == column.name else row[one])
            for one in key
        ]
        change(filled, update(table).where(*back).values(row))
        assert found(filled) == [], f"{name}.{column.name}"
        seen += 1
    assert seen >= len(table.c) - 1


def test_what_is_found_says_which_row_and_what_happened(filled: str):
    version_, metric = tables.version, tables.metric
    here = (version_.c.name == "demo/fp8") & (version_.c.number == 2)
    change(filled, update(version_).where(here).values(verdict="UNVERIFIED"))
    (said,) = found(filled)
    assert said.startswith("demo/fp8:2: does not match its seal: it was changed after it was written")
    change(filled, update(version_).where(here).values(verdict="PASX"))
    assert found(filled) == ["demo/fp8:2: verdict is 'PASX'; it is one of PASS, UNVERIFIED"]
    change(filled, update(version_).where(here).values(verdict="PASS"))
    here = (metric.c.name == "demo/fp8") & (metric.c.number == 2) & (metric.c.metric == "third")
    change(filled, delete(metric).where(here))
    (said,) = found(filled)
    assert said.startswith("demo/fp8:2: ")
    assert "one of its metrics was changed, added or removed" in said


def test_rows_that_change_places_are_found(filled: str):
    policy = tables.waiver
    change(
        filled,
        update(policy).where(policy.c.id == 1).values(id=99),
        update(policy).where(policy.c.id == 2).values(id=1),
        update(policy).where(policy.c.id == 99).values(id=2),
    )
    assert len(found(filled)) == 2


def test_an_event_that_is_removed_is_found(filled: str):
    change(filled, delete(tables.log).where(tables.log.c.seq == 4))
    said = found(filled)
    assert [one for one in said if one.startswith("event 5 of ") and "the event before it was removed" in one]
    change(filled, delete(tables.log))
    assert "demo/fp8:1: has no event of its publication" in found(filled)


def test_versions_that_are_lost_and_aliases_that_point_nowhere_are_found(filled: str):
    gone = [
        delete(table).where(table.c.name == "demo/fp8", table.c.number == 2)
        for table in (tables.metric, tables.waiver, tables.version)
    ]
    change(filled, *gone, update(tables.alias).where(tables.alias.c.alias == "prod").values(number=2))
    said = found(filled)
    assert "demo/fp8:2: is missing: 3 versions were published" in said
    assert "demo/fp8@prod: points at a row of version that is not there" in said


def test_a_row_of_another_program_has_no_seal(filled: str):
    row = {
        "manifest_digest": "e" * 64,
        "key_id": "x",
        "bundle": "{}",
        "signed_at": AT.isoformat(),
        "signed_by": "?",
    }
    change(filled, insert(tables.signature).values(row))
    assert found(filled) == [f"the signature of {'e' * 64} by x: has no seal: another program wrote it"]


def test_a_table_that_is_gone_is_said(filled: str):
    change(filled, text("DROP TABLE delivery"))
    (said,) = found(filled)
    assert "the registry has no table 'delivery'; restore the registry from a backup" in said


def test_engines_are_sought_in_the_store(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    registry = open_registry(store.registry_url)
    for number, one in enumerate((key, other_key), 1):
        put(one, {"engine": str(number).encode()})
        digest = store.manifest(one).digest
        made = replace(ONE, name="demo", engine_key=one, recipe={"n": number}, manifest_digest=digest)
        registry.publish(made, store=Binding(store.id, store.url))
    database = connect(store.registry_url)
    assert audit(database, store).findings == ()
    store.remove(key)
    store.remove(other_key)
    put(other_key, {"engine": b"other bytes under the same key"})
    said = [str(one) for one in audit(database, store).findings]
    assert said[0] == f"demo:1: its engine {key} is not in the store; build its recipe again"
    assert said[1] == (
        f"demo:2: its engine {other_key} is not in the store (it has another build of it); build its recipe again"
    )
    with database.writing() as db:
        retention.collect(db, retention.read_retention(db).versions)
    assert audit(database, store).findings == ()


def test_a_bad_page_is_found_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "registry.db"
    registry = open_registry(path)
    for n in range(1, 60):
        registry.publish(version(n))
    before = bytearray(path.read_bytes())
    before[-3000:-1000] = b"\x5a" * 2000
    path.write_bytes(before)
    done = audit(connect(path))
    assert any("SQLite finds it damaged" in one.what or "cannot be used" in one.what for one in done.findings)
    assert path.read_bytes() == before
    assert not path.with_name("registry.db-journal").exists()


def test_a_registry_that_waits_for_a_writer_is_said_to_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("artifacts.registry.database.BUSY_MS", 100)
    path = tmp_path / "registry.db"
    open_registry(path).publish(version(1))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = audit(connect(path))
    assert done.unreadable
    assert "database is locked" in done.findings[0].what


ODD_WRITES = {
    "a policy": lambda registry, db: db.execute(
        insert(tables.policy).values(**seals.sealed(tables.policy, {"alias": "a" * 65, "rules": {}, "set_at": AT.isoformat(), "set_by": ""}))
    ),
    "an event": lambda registry, db: log.record(db, "team/a", "published", {"number": "one"}),
    "an event's name": lambda registry, db: log.record(db, "a" * 201, "policy_set", {"alias": "x", "rules": None}),
    "a store": lambda registry, db: bind(registry.database, db, Binding("i" * 65, "file:///x")),
    "facts": lambda registry, db: insert_new(db, tables.facts, id="x", facts={}),
    "a name": lambda registry, db: take_turn(db, "n" * 201),
}  # fmt: skip
"""Rows that no reader takes, by the functions that write them."""


@pytest.mark.parametrize("what", ODD_WRITES)
def test_no_writer_writes_what_every_reader_calls_odd(registry_url: str, what: str):
    registry = open_registry(registry_url)
    registry.database.create()
    before = audit(registry.database).rows
    with pytest.raises(RowRefused, match="cannot be written: "), registry.database.writing() as db:
        ODD_WRITES[what](registry, db)
    assert audit(registry.database).rows == before


def test_a_signature_too_long_to_be_read_is_not_kept(registry_url: str):
    registry = open_registry(registry_url, verified=lambda bundle, digest, key: True)
    registry.publish(version(1))
    signature = Signature(
        manifest_digest="0" * 64, key_id="k" * 65, bundle="{}", signed_at=AT, signed_by="me"
    )
    with pytest.raises(RowRefused, match="key_id "), registry.database.writing() as db:
        db.execute(
            insert(tables.signature).values(
                **seals.sealed(tables.signature, asdict(signature) | {"signed_at": AT.isoformat()})
            )
        )
