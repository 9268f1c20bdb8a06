"""The registry's tables; SQLite and PostgreSQL."""

from sqlalchemy import (
    DDL,
    JSON,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
)

SCHEMA_VERSION = 1

METADATA = MetaData()

schema = Table("schema_version", METADATA, Column("number", Integer, primary_key=True, autoincrement=False))

series = Table(
    "series",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("last", Integer, nullable=False),
)
"""Last number per name; updating its row is what makes publishers of one name take turns."""

version = Table(
    "version",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("engine_key", String(64), nullable=False, index=True),
    Column("identity", String(64), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("checks", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("published_at", String(32), nullable=False),
    UniqueConstraint("name", "identity"),
    ForeignKeyConstraint(["name"], ["series.name"]),
)
"""`identity` is the digest of engine key, recipe and verdict; times are ISO 8601, UTC."""

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
)

alias = Table(
    "alias",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
)

log = Table(
    "event",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("name", String(200), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("detail", JSON, nullable=False),
    sqlite_autoincrement=True,
)

for verb in ("UPDATE", "DELETE"):
    refusal: DDL = DDL(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        f"CREATE TRIGGER event_no_{verb.lower()} BEFORE {verb} ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END"
    )
    event.listen(log, "after_create", refusal.execute_if(dialect="sqlite"))
