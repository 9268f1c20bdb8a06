"""The registry's tables; SQLite and PostgreSQL. What `seal` covers says `artifacts.registry.seals`."""

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
"""A row as names and values, read or to be written."""

schema = Table("schema_version", METADATA, Column("number", Integer, primary_key=True, autoincrement=False))

series = Table(
    "series",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("folded", String(200), nullable=False),
    Column("last", Integer, nullable=False),
    UniqueConstraint("folded", name="series_folded_key"),
)
"""Last number per name; updating its row is what makes publishers of one name take turns. `folded` is the
name without case: two that differ in nothing else would overwrite each other's files on many disks."""

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
"""What engines need of a host and were built for; `id` is the digest. Versions of one layout share a row,
so that a search looks at each set of facts once."""

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
    UniqueConstraint("name", "identity"),
    ForeignKeyConstraint(["name"], ["series.name"]),
    ForeignKeyConstraint(["facts_id"], ["facts.id"], name="version_facts_id_fkey"),
)
"""`identity` is what `artifacts.registry.identity` says; rows of earlier versions keep theirs. Times are ISO
8601, UTC. `manifest_digest` is unknown of versions published under schema 1. `source` says where the model
came from and its licence. `collected_at` is when gc took the bytes."""

metric = Table(
    "metric",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", String(200), primary_key=True),
    Column("position", Integer, nullable=False),
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
"""Where each alias points now; where it pointed before is in the event log."""

policy = Table(
    "policy",
    METADATA,
    Column("alias", String(64), primary_key=True),
    Column("rules", JSON, nullable=False),
    Column("set_at", String(32), nullable=False),
    Column("set_by", String(200), nullable=False),
    Column("seal", String(64)),
)
"""What a version must be before an alias of that name may point at it, whatever the version's name."""

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
"""A rule of a policy that one version need not meet until a moment, and why."""

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
"""Detached signatures over manifests; whoever relies on one checks it against a public key."""

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
"""Signed statements of how engines were built, by key: two builds may make the same bytes."""

pulled = Table(
    "pulled",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("last_at", String(32), nullable=False),
    Column("times", Integer, nullable=False),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
)
"""When each version was pulled last, for gc."""

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
"""Who is told of events: `way` is `webhook` or `command`, `names` a glob, `secret` says where the secret is
(`env:NAME` or `file:PATH`), never what it is; events after `after_seq` count."""

delivery = Table(
    "delivery",
    METADATA,
    Column("subscription", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", String(32)),
    Column("done_at", String(32)),
    Column("problem", Text),
    ForeignKeyConstraint(["subscription"], ["subscription.id"]),
)
"""What became of telling a subscriber of an event; `next_at` is when it is tried again."""

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
"""What keeps the log from being changed, by kind of database."""

for dialect, statements in ONLY_GROWS.items():
    for statement in statements:
        ddl: DDL = DDL(statement)  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        event.listen(log, "after_create", ddl.execute_if(dialect=dialect))
