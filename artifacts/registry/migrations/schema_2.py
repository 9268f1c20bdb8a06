"""From schema 1 to 2: facts shared by versions, where models came from, who did what; policies and more."""

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy import Connection, select, update

from artifacts import digest

UNKNOWN = "unknown"
"""Who published, moved or did something before that was recorded."""

SERIES = sa.table("series", sa.column("name"), sa.column("folded"))
FACTS = sa.table("facts", sa.column("id"), sa.column("facts", sa.JSON))
VERSION = sa.table(
    "version",
    *map(sa.column, ("name", "number", "published_at", "published_by", "origin", "model", "facts_id")),
    *(sa.column(name, sa.JSON) for name in ("recipe", "facts", "source")),
)
ALIAS = sa.table("alias", *map(sa.column, ("name", "alias", "number", "moved_at", "moved_by")))
EVENT = sa.table("event", *map(sa.column, ("seq", "at", "name", "kind")), sa.column("detail", sa.JSON))
"""The columns that are filled here. Fixed, unlike `artifacts.registry.tables`, which later schemas change."""

GUARDS = {
    "sqlite": (
        "CREATE TRIGGER event_no_update BEFORE UPDATE ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END",
        "CREATE TRIGGER event_no_delete BEFORE DELETE ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION event_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are only added'; END $$",
        "CREATE TRIGGER event_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
        "FOR EACH STATEMENT EXECUTE FUNCTION event_only_grows()",
    ),
}
"""Triggers that make the log append-only; SQLite dropped the old ones with the rebuilt table."""


def upgrade(op: Operations, db: Connection) -> None:
    """Create the new tables and columns, and fill them from the existing rows."""
    _series(op, db)
    _tables(op)
    _version(op, db)
    _alias(op, db)
    op.create_index("ix_metric_metric", "metric", ["metric"])
    _event(op, db)


def _series(op: Operations, db: Connection) -> None:
    # Nullable until the rows are filled; the batch below forbids NULL.
    op.add_column("series", sa.Column("folded", sa.String(200)))
    folded_names: set[str] = set()
    for name in sorted(db.scalars(select(SERIES.c.name)), key=lambda name: (name != name.casefold(), name)):
        # of names that differ only by case, which schema 1 allowed, one is folded, the others stay as spelt
        folded = name if name.casefold() in folded_names else name.casefold()
        folded_names.add(folded)
        db.execute(update(SERIES).where(SERIES.c.name == name).values(folded=folded))
    with op.batch_alter_table("series") as batch:
        batch.alter_column("folded", existing_type=sa.String(200), nullable=False)
        batch.create_unique_constraint("series_folded_key", ["folded"])


def _version(op: Operations, db: Connection) -> None:
    required: dict[str, sa.types.TypeEngine[Any]] = {
        "model": sa.String(1000),
        "origin": sa.String(20),
        "source": sa.JSON(),
        "facts_id": sa.String(64),
        "published_by": sa.String(200),
    }
    optional: dict[str, sa.types.TypeEngine[Any]] = {
        "manifest_digest": sa.String(64),
        "collected_at": sa.String(32),
    }
    for name, kind in {**required, **optional}.items():
        op.add_column("version", sa.Column(name, kind))
    db.execute(update(VERSION).values(origin="built", published_by=UNKNOWN))
    _fill_versions(db)
    with op.batch_alter_table("version") as batch:
        for name, kind in required.items():
            batch.alter_column(name, existing_type=kind, nullable=False)
        # Dropped only now: `_fill_versions` has read its values.
        batch.drop_column("facts")
        batch.create_foreign_key("version_facts_id_fkey", "facts", ["facts_id"], ["id"])
    op.create_index("ix_version_model", "version", ["model"])
    op.create_index("ix_version_facts_id", "version", ["facts_id"])


def _fill_versions(db: Connection) -> None:
    """Move facts into the table that versions share; copy the model and its source from the recipe."""
    stored_ids: set[str] = set()
    for name, number in db.execute(select(VERSION.c.name, VERSION.c.number)).all():
        this_version = (VERSION.c.name == name) & (VERSION.c.number == number)
        # Row by row: the recipes of a large registry do not fit into memory.
        recipe, facts = db.execute(select(VERSION.c.recipe, VERSION.c.facts).where(this_version)).one()
        facts_id = digest.of_json(facts)
        if facts_id not in stored_ids:
            db.execute(FACTS.insert().values(id=facts_id, facts=facts))
            stored_ids.add(facts_id)
        model, source = _origin(recipe.get("model", {}))
        db.execute(update(VERSION).where(this_version).values(facts_id=facts_id, model=model, source=source))


def _origin(model: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if model.get("repo"):
        return model["repo"], {"repo": model["repo"], "revision": model.get("revision")}
    path = model.get("path")
    # The column is NOT NULL, so an unknown model is the empty text.
    return (path, {"path": path}) if path else ("", {})


def _alias(op: Operations, db: Connection) -> None:
    op.add_column("alias", sa.Column("moved_at", sa.String(32)))
    op.add_column("alias", sa.Column("moved_by", sa.String(200)))
    db.execute(update(ALIAS).values(moved_by=UNKNOWN))
    # Schema 1 kept no time in the alias; its last move in the log has it.
    moves = select(EVENT.c.at, EVENT.c.name, EVENT.c.detail).where(EVENT.c.kind == "alias_moved")
    # In order, so that the last move of an alias stays.
    for at, name, detail in db.execute(moves.order_by(EVENT.c.seq)).all():
        this_alias = (ALIAS.c.name == name) & (ALIAS.c.alias == detail["alias"])
        db.execute(update(ALIAS).where(this_alias).values(moved_at=at))
    with op.batch_alter_table("alias") as batch:
        batch.alter_column("moved_at", existing_type=sa.String(32), nullable=False)
        batch.alter_column("moved_by", existing_type=sa.String(200), nullable=False)


def _event(op: Operations, db: Connection) -> None:
    # A default instead of an UPDATE: the triggers of the log forbid updates.
    by = sa.Column("by", sa.String(200), nullable=False, server_default=UNKNOWN)
    op.add_column("event", by)
    # SQLite rebuilds the table for this, and drops its triggers.
    with op.batch_alter_table("event", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("by", existing_type=sa.String(200), server_default=None)
    for guard in GUARDS[db.dialect.name]:
        op.execute(guard)


def _tables(op: Operations) -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("url", sa.String(1000), nullable=False),
        sa.Column("bound_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "facts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_table(
        "policy",
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("set_at", sa.String(32), nullable=False),
        sa.Column("set_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "waiver",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("rule", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("granted_at", sa.String(32), nullable=False),
        sa.Column("granted_by", sa.String(200), nullable=False),
        sa.Column("until", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
    )
    op.create_index("ix_waiver_version", "waiver", ["name", "number"])
    op.create_table(
        "pulled",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last_at", sa.String(32), nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["name", "number"], ["version.name", "version.number"]),
    )
    _tables_of_others(op)


def _tables_of_others(op: Operations) -> None:
    """Create the tables of signatures, attestations, subscriptions and deliveries."""
    op.create_table(
        "signature",
        sa.Column("manifest_digest", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("signed_at", sa.String(32), nullable=False),
        sa.Column("signed_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "attestation",
        sa.Column("engine_key", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("signed_at", sa.String(32), nullable=False),
        sa.Column("signed_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "subscription",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("way", sa.String(20), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("secret", sa.String(300)),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("names", sa.String(200), nullable=False),
        sa.Column("after_seq", sa.Integer, nullable=False),
        sa.Column("added_at", sa.String(32), nullable=False),
        sa.Column("added_by", sa.String(200), nullable=False),
    )
    op.create_table(
        "delivery",
        sa.Column("subscription", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.String(32)),
        sa.Column("done_at", sa.String(32)),
        sa.Column("problem", sa.Text),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.id"]),
    )
