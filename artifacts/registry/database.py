"""The registry's database: opens it by URL, creates and upgrades its schema, and translates its errors."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, ProgrammingError
from sqlalchemy.pool import NullPool

from artifacts.errors import StoreUnknown, StoreUnusable
from artifacts.registry import marker, rows, tables
from artifacts.registry.shapes import read_json
from artifacts.store import disk, reserve
from artifacts.store.disk import ReportFullDisk, ReportUnwritable
from recipes.regular import FileRefused, require_kind, user_path

BUSY_MS = 30_000
"""Longest wait of a writer for another one; a publication takes milliseconds."""

CONNECT_S = 10
"""Longest wait for a connection to a server."""

CREATION = 0x656E67696E
"""Key of the PostgreSQL advisory lock for creating tables; arbitrary, but it must never change."""

NOT_OUR_BUG = frozenset({"42501", "42P01", "42703"})
"""PostgreSQL codes for missing permissions, tables and columns: problems of the database, not of our code."""

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite codes for a corrupt file."""

SHOWN = frozenset({"host", "port", "sslmode", "connect_timeout", "application_name", "mode", "uri"})
"""URL query parameters that messages show; any other one may be a secret."""


class Database:
    """Transactions on one database.

    A missing SQLite file is empty for readers and created by the first write. On a server, `create` creates
    the tables; without them every use is a StoreUnusable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._reader = engine
        # PostgreSQL's default isolation lets each statement of a transaction see another state.
        if engine.dialect.name == "postgresql":
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._ready = False
        self.kind: str = engine.dialect.name
        """`sqlite` or `postgresql`."""
        self.url = public_url(engine.url)

    def exists(self) -> bool:
        """Whether its tables exist; StoreUnusable for another schema version, and for a store's own registry
        that was lost."""
        if not self._ready:
            binding = marker.is_store_registry(_file_of(self._engine.url))
            schema = self.schema()
            marker.require_not_lost(self.url, was_known=binding, schema=schema)
            self._ready = self._check_schema(schema)
        return self._ready

    def schema(self) -> int | None:
        """Number of its schema; None where there is none yet."""
        path = _file_of(self._engine.url)
        if path is not None and not path.exists():
            return None
        with self.reading() as db:
            return self._schema(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction, which sees one consistent state."""
        with self._translate_errors(), self._reader.begin() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction, all or nothing; in SQLite it holds the write lock from its start."""
        if not self.exists():
            self.create()
        with self._with_room(), self._translate_errors(), self._writer.begin() as db:
            yield db

    def create(self) -> None:
        """Create the tables if they do not exist; StoreUnusable for a store's own registry that was lost."""
        path = _file_of(self._engine.url)
        if path is not None:
            marker.require_not_lost(self.url, was_known=marker.is_store_registry(path), schema=self.schema())
            with ReportFullDisk(path.parent, "the registry"), ReportUnwritable(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        # Two first users race for this. Each checks for the tables only after it holds the write lock.
        with self._translate_errors(), self._writer.begin() as db:
            self.take_turns(db)
            if self._schema(db) is None:
                tables.METADATA.create_all(db)
                db.execute(insert(tables.schema).values(number=tables.SCHEMA_VERSION))
        self.exists()

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        """Use the reserve of the store whose directory the file is in."""
        path = _file_of(self._engine.url)
        if path is None:
            yield
            return
        reserve.make_room(path.parent, reserve.REGISTRY_BYTES)
        try:
            yield
        finally:
            reserve.keep(path.parent)

    def upgrade(self) -> tuple[int, int]:
        """Upgrade an older schema to the current one, all or nothing; return both numbers.

        StoreUnusable where there is no schema yet, or a newer one.
        """
        from artifacts.registry import migrations  # Alembic: only for this

        with (
            self._translate_errors(),
            self._engine.execution_options(writes=True, remakes=True).begin() as db,
        ):
            self.take_turns(db)
            schema = self._schema(db)
            if schema is None:
                raise StoreUnusable(
                    f"registry {self.url} has no schema yet; `enginery registry init` makes it"
                )
            if schema < tables.SCHEMA_VERSION:
                migrations.upgrade(db, schema)
        self.exists()
        return schema, tables.SCHEMA_VERSION

    def _schema(self, db: Connection) -> int | None:
        inspector = inspect(db)
        # A process that was killed while it created an SQLite file may leave one without tables.
        if not inspector.has_table(tables.schema.name):
            other_tables = inspector.get_table_names() if self.kind == "sqlite" else []
            if other_tables:
                raise StoreUnusable(
                    f"{self.url} has table {other_tables[0]!r} of another program, and none of enginery; give"
                    " enginery a database of its own"
                )
            return None
        if [column["name"] for column in inspector.get_columns(tables.schema.name)] != ["number"]:
            raise StoreUnusable(
                f"{self.url} has a table {tables.schema.name!r} of another program; give enginery a database "
                "of its own"
            )
        numbers = db.scalars(select(tables.schema.c.number)).all()
        if len(numbers) != 1 or type(numbers[0]) is not int:
            raise StoreUnusable(
                f"{self.url} does not say its schema: table {tables.schema.name!r} holds {numbers[:2]!r} in "
                "place of one number; it is damaged, restore it from a backup"
            )
        return numbers[0]

    def take_turns(self, db: Connection) -> None:
        """Serialize changes that concern the whole database: others wait until this transaction ends."""
        if self.kind == "postgresql":  # SQLite has one write lock for the whole database
            db.execute(select(func.pg_advisory_xact_lock(CREATION)))

    def _check_schema(self, schema: int | None) -> bool:
        present, where_ = tables.SCHEMA_VERSION, f"registry {self.url}"
        if schema is None and self.kind != "sqlite":
            raise StoreUnusable(
                f"{where_} has no schema yet; make it once with: enginery --registry {self.url} registry init"
            )
        if schema is not None and schema < present:
            raise StoreUnusable(
                f"{where_} has schema {schema}, and this version reads {present}; bring it there with: "
                "enginery registry upgrade"
            )
        if schema is not None and schema > present:
            raise StoreUnusable(
                f"{where_} has schema {schema}, and this version reads {present}; use the version of"
                " enginery that wrote it, or a later one"
            )
        return schema is not None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:  # a conflict with another transaction, which callers handle
            raise
        except DatabaseError as exc:
            code = getattr(exc.orig, "sqlstate", None)
            connecting = exc.statement is None
            if isinstance(exc, ProgrammingError) and code not in NOT_OUR_BUG and not connecting:  # our bug
                raise
            path, message = _file_of(self._engine.url), " ".join(str(exc.orig).split())
            if path is not None and getattr(exc.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreUnusable(disk.full_disk_message(path.parent, f"the registry {self.url}")) from exc
            damaged = getattr(exc.orig, "sqlite_errorcode", 0) & 0xFF in DAMAGED
            remedy = "restore it from a backup" if damaged else "check that it is there and can be written"
            raise StoreUnusable(f"registry {self.url} cannot be used: {message}; {remedy}") from exc


def open_database(url_or_path: str | Path) -> Database:
    """The database at a URL or in an SQLite file; StoreUnusable for a server without a schema, and for
    another schema version."""
    database = connect(url_or_path)
    database.exists()
    return database


def connect(url_or_path: str | Path) -> Database:
    """The database at a URL or in an SQLite file, without a look at its schema; StoreUnknown for an unknown
    kind or a missing driver, FileRefused for a path that is not a file."""
    text = str(url_or_path)
    try:
        url = _url(text)
        # No pool: a connection must not stay open across forks and long builds. The deserializer returns a
        # value for malformed JSON, so that one bad row does not end the query for all rows.
        engine = create_engine(url, poolclass=NullPool, json_deserializer=read_json)
    except (ArgumentError, NoSuchModuleError, ValueError) as exc:
        raise StoreUnknown(
            f"registry {mask_secrets(text)!r}: {mask_secrets(str(exc), text)}; give sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE"
        ) from None
    except ModuleNotFoundError as exc:
        raise StoreUnknown(
            f"registry {mask_secrets(text)!r} needs the module {exc.name}; install it beside enginery"
        ) from None
    if engine.dialect.name == "sqlite":
        file = _file_of(engine.url)
        if file is not None:
            require_kind(file, "a file")
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _limit_connecting)
        event.listen(engine, "begin", _limit_lock_wait)
    else:
        raise StoreUnknown(
            f"registry {mask_secrets(text)!r}: {engine.dialect.name} is not tested; give sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE"
        )
    return Database(engine)


def require_place(url_or_path: str) -> None:
    """Raise a FileRefused for an SQLite file in a missing directory."""
    if "://" in url_or_path and not url_or_path.startswith("sqlite"):
        return
    with suppress(ArgumentError, ValueError):  # `connect` reports it
        file = _file_of(_url(url_or_path))
        if file is not None and not file.parent.exists():
            raise FileRefused(file, f"there is no directory {file.parent}; make it, or give another file")


def public_url(url: URL) -> str:
    """The URL without password and unknown query parameters, for messages and logs."""
    public = url.difference_update_query(url.query.keys() - SHOWN)
    return public._replace(password=None).render_as_string(hide_password=False)


def mask_secrets(text: str, url: str | None = None) -> str:
    """`text` with user, password and unknown query parameters of URLs replaced by asterisks."""
    if url is not None:
        text = text.replace(url, mask_secrets(url))
    text = re.sub(r"(?<=://).*@", "***@", text, flags=re.DOTALL)
    return re.sub(
        r"([?&])([^=&\s]*)=[^&\s']*",
        lambda match: match[0] if match[2] in SHOWN else f"{match[1]}{match[2]}=***",
        text,
    )


def insert_new(db: Connection, table: Table, **row: Any) -> bool:
    """Insert the row unless a row with its key exists or is being inserted by another transaction; return
    whether it was inserted. RowRefused for a row that readers would reject as odd."""
    dialect = import_module(
        f"sqlalchemy.dialects.{db.dialect.name}"
    )  # loaded already; the other is not needed
    statement = dialect.insert(table).values(**rows.check_row(table, row))
    return bool(db.execute(statement.on_conflict_do_nothing()).rowcount)


def _url(text: str) -> URL:
    if "://" not in text:
        return URL.create("sqlite", database=str(user_path(text)))
    url = make_url(text)
    if url.drivername in ("postgresql", "postgres"):  # as every other program writes it
        return url.set(drivername="postgresql+psycopg")
    return url


def _set_up_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # Keep the default rollback journal: a write-ahead log cannot be read from a read-only mount, which
    # consumers use, and publications are too few for its speed to matter. `isolation_level = None` turns off
    # the driver's own BEGIN, so that `_begin` decides.
    connection.isolation_level = None
    # Invalid UTF-8 must make its own row odd, not raise in a query over all rows.
    connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(db: Connection) -> None:
    if db.get_execution_options().get("remakes"):  # else a table that rows reference cannot be dropped
        db.exec_driver_sql("PRAGMA foreign_keys = OFF")
    # A transaction that begins as a reader and writes later fails with "database is locked" if another one
    # wrote in between. IMMEDIATE takes the write lock at once, and waits for it.
    db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("writes") else "BEGIN")


def _limit_connecting(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_S)


def _limit_lock_wait(db: Connection) -> None:
    if db.get_execution_options().get("writes"):
        db.exec_driver_sql(f"SET LOCAL lock_timeout = {BUSY_MS}")


def _file_of(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return None
    return Path(url.database)
