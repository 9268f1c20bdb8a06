"""The registry's tables for SQLite and PostgreSQL. `artifacts.registry.seals` defines what `seal` covers."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

SCHEMA_VERSION = 3

METADATA = MetaData()

Values = Mapping[str, Any] | RowMapping
"""A row, read or to be written: column -> value."""

schema = Table("schema_version", METADATA, Column("number", Integer, primary_key=True, autoincrement=False))

series = Table(
    "series",
    METADATA,
    Column("name", String(200), primary_key=True),
    # Unique below: a race between two spellings of one name ends here.
    Column("folded", String(200), nullable=False),
    Column("last", Integer, nullable=False),
    UniqueConstraint("folded", name="series_folded_key"),
)
"""Last number of each name; updating the row serializes publications of the name. `folded` is the name
without case: two names that differ only by case would overwrite each other's files on many file systems."""

store = Table(
    "store",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("url", String(1000), nullable=False),
    Column("bound_at", String(32), nullable=False),
    Column("seal", String(64)),
)
"""The one store whose artifacts this registry names: `id` of its `store.json`, and its first URL."""

facts = Table(
    "facts",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("facts", JSON, nullable=False),
)
"""Facts of engines; `id` is their digest. Versions with equal facts share a row, so that a search checks
each set of facts once."""

version = Table(
    "version",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("engine_key", String(64), nullable=False, index=True),
    Column("manifest_digest", String(64)),
    Column("model", String(1000), nullable=False, index=True),
    Column("origin", String(20), nullable=False),
    Column("identity", String(64), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("checks", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("facts_id", String(64), nullable=False, index=True),
    Column("published_at", String(32), nullable=False),
    Column("published_by", String(200), nullable=False),
    Column("collected_at", String(32)),
    Column("seal", String(64)),
    # Two publications of one version cannot both be inserted, whatever the checks before.
    UniqueConstraint("name", "identity"),
    ForeignKeyConstraint(["name"], ["series.name"]),
    ForeignKeyConstraint(["facts_id"], ["facts.id"], name="version_facts_id_fkey"),
)
"""`identity` is computed by `artifacts.registry.identity`; rows of earlier versions keep theirs. Times are
ISO 8601, UTC. `manifest_digest` is NULL for versions published under schema 1. `source` records the model's
origin and licence. `collected_at` is when gc removed the files."""

metric = Table(
    "metric",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", String(200), primary_key=True),
    Column("position", Integer, nullable=False),
    # 53 bits: as precise as Python's own floats.
    Column("value", Float(53), nullable=False),
    Column("low", Float(53)),
    Column("high", Float(53)),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
    Index("ix_metric_metric", "metric"),
)

alias = Table(
    "alias",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("moved_at", String(32), nullable=False),
    Column("moved_by", String(200), nullable=False),
    Column("seal", String(64)),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
)
"""The present version of each alias; the event log has its history."""

policy = Table(
    "policy",
    METADATA,
    Column("alias", String(64), primary_key=True),
    Column("rules", JSON, nullable=False),
    Column("set_at", String(32), nullable=False),
    Column("set_by", String(200), nullable=False),
    Column("seal", String(64)),
)
"""The policy of every alias with that name, for all names of versions."""

waiver = Table(
    "waiver",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False),
    Column("number", Integer, nullable=False),
    Column("alias", String(64), nullable=False),
    Column("rule", String(40), nullable=False),
    Column("reason", Text, nullable=False),
    Column("granted_at", String(32), nullable=False),
    Column("granted_by", String(200), nullable=False),
    Column("until", String(32), nullable=False),
    Column("seal", String(64)),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
    Index("ix_waiver_version", "name", "number"),
)
"""Waivers of a rule for one version until a moment."""

signature = Table(
    "signature",
    METADATA,
    Column("manifest_digest", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("bundle", Text, nullable=False),
    Column("signed_at", String(32), nullable=False),
    Column("signed_by", String(200), nullable=False),
    Column("seal", String(64)),
)
"""Detached signatures over manifests, stored unverified."""

attestation = Table(
    "attestation",
    METADATA,
    Column("engine_key", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("bundle", Text, nullable=False),
    Column("signed_at", String(32), nullable=False),
    Column("signed_by", String(200), nullable=False),
    Column("seal", String(64)),
)
"""Signed provenance statements of engines, by key: two builds may produce the same bytes."""

pulled = Table(
    "pulled",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("last_at", String(32), nullable=False),
    Column("times", Integer, nullable=False),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
)
"""Time of the latest pull of each version, for gc."""

subscription = Table(
    "subscription",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("way", String(20), nullable=False),
    Column("target", Text, nullable=False),
    Column("secret", String(300)),
    Column("kinds", JSON, nullable=False),
    Column("names", String(200), nullable=False),
    Column("after_seq", Integer, nullable=False),
    Column("added_at", String(32), nullable=False),
    Column("added_by", String(200), nullable=False),
)
"""Subscribers: `way` is `webhook` or `command`, `names` a glob, `secret` a reference (`env:NAME` or
`file:PATH`), never the secret itself; events after `after_seq` are delivered."""

delivery = Table(
    "delivery",
    METADATA,
    Column("subscription", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("attempts", Integer, nullable=False),
    # NULL once there is no further attempt.
    Column("next_at", String(32)),
    Column("done_at", String(32)),
    Column("problem", Text),
    ForeignKeyConstraint(["subscription"], ["subscription.id"]),
)
"""The state of each delivery of an event to a subscriber; `next_at` is the time of the next attempt."""

log = Table(
    "event",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("name", String(200), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("by", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("seal", String(64)),
    sqlite_autoincrement=True,
)

ONLY_GROWS = {
    "sqlite": [
        f"CREATE TRIGGER event_no_{verb.lower()} BEFORE {verb} ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION event_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are only added'; END $$",
        "CREATE TRIGGER event_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
        "FOR EACH STATEMENT EXECUTE FUNCTION event_only_grows()",
    ],
}
"""Triggers that make the event table append-only, by kind of database."""

for dialect, statements in ONLY_GROWS.items():
    for statement in statements:
        ddl: DDL = DDL(statement)  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        event.listen(log, "after_create", ddl.execute_if(dialect=dialect))
