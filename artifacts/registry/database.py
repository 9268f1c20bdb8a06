"""The registry's database: opened by URL, made and upgraded, its refusals said in words."""

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
from artifacts.store.disk import FullDiskSaid, UnwritableSaid
from recipes.regular import FileRefused, require_kind, user_path

BUSY_MS = 30_000
"""How long a writer waits for another; a publication takes milliseconds."""

CONNECT_S = 10
"""How long a server may take to answer."""

CREATION = 0x656E67696E
"""Number of the PostgreSQL lock under which tables are made; any, as long as it stays the same."""

OF_OTHERS = frozenset({"42501", "42P01", "42703"})
"""PostgreSQL's codes for what its user may not do, and for tables and columns that are not there."""

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite's codes for a file of which the bytes are not as it wrote them."""

SHOWN = frozenset({"host", "port", "sslmode", "connect_timeout", "application_name", "mode", "uri"})
"""Parts of a URL's query that may be shown; any other may be a secret, misspelt ones too."""


class Database:
    """Transactions on one database.

    An SQLite file that is not there yet is empty for readers and made by the first write; the tables of a
    server are made by `create`, and without them it is a StoreUnusable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._reader = engine
        if engine.dialect.name == "postgresql":  # whose transactions see many moments unless asked otherwise
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._ready = False
        self.kind: str = engine.dialect.name
        """`sqlite` or `postgresql`."""
        self.url = shown(engine.url)

    def exists(self) -> bool:
        """Whether its tables are there; a schema of another version is a StoreUnusable, and so is a store's
        own that is gone."""
        if not self._ready:
            binding = marker.beside(_file_of(self._engine.url))
            schema = self.schema()
            marker.require_never_was(self.url, was_known=binding, schema=schema)
            self._ready = self._is_ours(schema)
        return self._ready

    def schema(self) -> int | None:
        """Number of the schema that is there; None where there is none yet."""
        path = _file_of(self._engine.url)
        if path is not None and not path.exists():
            return None
        with self.reading() as db:
            return self._schema(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment."""
        with self._said(), self._reader.begin() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all or nothing; in SQLite it holds the one write lock from its start."""
        if not self.exists():
            self.create()
        with self._with_room(), self._said(), self._writer.begin() as db:
            yield db

    def create(self) -> None:
        """Makes the tables, where they are not there yet; those of a store's own that is gone are not."""
        path = _file_of(self._engine.url)
        if path is not None:
            marker.require_never_was(self.url, was_known=marker.beside(path), schema=self.schema())
            with FullDiskSaid(path.parent, "the registry"), UnwritableSaid(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        # two first users take turns: each looks what exists only once it holds the write lock
        with self._said(), self._writer.begin() as db:
            self.take_turns(db)
            if self._schema(db) is None:
                tables.METADATA.create_all(db)
                db.execute(insert(tables.schema).values(number=tables.SCHEMA_VERSION))
        self.exists()

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        """Where it is in a store's directory, that store's reserve is its own too."""
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
        """Brings an older schema to the present one, all or nothing; the numbers before and after.

        Where there is none yet, or a newer one, a StoreUnusable.
        """
        from artifacts.registry import migrations  # Alembic: only for this

        with self._said(), self._engine.execution_options(writes=True, remakes=True).begin() as db:
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
        # a process killed while it made an SQLite file may have left one without tables
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
        """Holds what concerns the whole database until the transaction ends; whoever else wants it waits."""
        if self.kind == "postgresql":  # which has no write lock of the whole database
            db.execute(select(func.pg_advisory_xact_lock(CREATION)))

    def _is_ours(self, schema: int | None) -> bool:
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
    def _said(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:  # not the database's state, but a conflict
            raise
        except DatabaseError as exc:
            code = getattr(exc.orig, "sqlstate", None)
            connecting = exc.statement is None
            if isinstance(exc, ProgrammingError) and code not in OF_OTHERS and not connecting:  # our bug
                raise
            path, message = _file_of(self._engine.url), " ".join(str(exc.orig).split())
            if path is not None and getattr(exc.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreUnusable(disk.full(path.parent, f"the registry {self.url}")) from exc
            damaged = getattr(exc.orig, "sqlite_errorcode", 0) & 0xFF in DAMAGED
            remedy = "restore it from a backup" if damaged else "check that it is there and can be written"
            raise StoreUnusable(f"registry {self.url} cannot be used: {message}; {remedy}") from exc


def open_database(url_or_path: str | Path) -> Database:
    """The database at a URL, or in an SQLite file, its schema checked; without one on a server, or with
    another's, a StoreUnusable."""
    database = connect(url_or_path)
    database.exists()
    return database


def connect(url_or_path: str | Path) -> Database:
    """The database at a URL, or in an SQLite file, whatever is in it; an unknown kind or a missing driver is
    a StoreUnknown, and what is no file a FileRefused."""
    text = str(url_or_path)
    try:
        url = _url(text)
        # nothing stays open across forks and long builds; JSON that cannot be read is a value like others
        engine = create_engine(url, poolclass=NullPool, json_deserializer=read_json)
    except (ArgumentError, NoSuchModuleError, ValueError) as exc:
        raise StoreUnknown(
            f"registry {hidden(text)!r}: {hidden(str(exc), text)}; give sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE"
        ) from None
    except ModuleNotFoundError as exc:
        raise StoreUnknown(
            f"registry {hidden(text)!r} needs the module {exc.name}; install it beside enginery"
        ) from None
    if engine.dialect.name == "sqlite":
        file = _file_of(engine.url)
        if file is not None:
            require_kind(file, "a file")
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _answer_in_time)
        event.listen(engine, "begin", _wait_no_longer)
    else:
        raise StoreUnknown(
            f"registry {hidden(text)!r}: {engine.dialect.name} is not tested; give sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE"
        )
    return Database(engine)


def require_place(url_or_path: str) -> None:
    """A FileRefused for an SQLite file, named by a person, in a directory that is not there."""
    if "://" in url_or_path and not url_or_path.startswith("sqlite"):
        return
    with suppress(ArgumentError, ValueError):  # told where it is opened
        file = _file_of(_url(url_or_path))
        if file is not None and not file.parent.exists():
            raise FileRefused(file, f"there is no directory {file.parent}; make it, or give another file")


def shown(url: URL) -> str:
    """The URL as messages and logs may have it: nothing in it that opens anything."""
    public = url.difference_update_query(url.query.keys() - SHOWN)
    return public._replace(password=None).render_as_string(hide_password=False)


def hidden(text: str, url: str | None = None) -> str:
    """`text` with whatever stands before the last @ of a URL, and what its query may hide, starred out."""
    if url is not None:
        text = text.replace(url, hidden(url))
    text = re.sub(r"(?<=://).*@", "***@", text, flags=re.DOTALL)
    return re.sub(
        r"([?&])([^=&\s]*)=[^&\s']*",
        lambda match: match[0] if match[2] in SHOWN else f"{match[1]}{match[2]}=***",
        text,
    )


def insert_new(db: Connection, table: Table, **row: Any) -> bool:
    """Inserts the row unless one with a key of it is there, which another transaction may be making; whether
    it was inserted. A row that readers would call odd is a RowRefused."""
    dialect = import_module(
        f"sqlalchemy.dialects.{db.dialect.name}"
    )  # loaded already; the other is not needed
    statement = dialect.insert(table).values(**rows.checked(table, row))
    return bool(db.execute(statement.on_conflict_do_nothing()).rowcount)


def _url(text: str) -> URL:
    if "://" not in text:
        return URL.create("sqlite", database=str(user_path(text)))
    url = make_url(text)
    if url.drivername in ("postgresql", "postgres"):  # as every other program writes it
        return url.set(drivername="postgresql+psycopg")
    return url


def _leave_transactions_to_us(connection: sqlite3.Connection, _: Any) -> None:
    # The journal stays the default one: a write-ahead log could not be read from a read-only mount, as
    # consumers have it, and publications are too few for its speed to matter.
    connection.isolation_level = None
    # bytes that are no UTF-8 are the matter of their row, not of whoever reads a list it is in
    connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(db: Connection) -> None:
    if db.get_execution_options().get("remakes"):  # dropping a table would look at all that points to it
        db.exec_driver_sql("PRAGMA foreign_keys = OFF")
    # one that reads first and writes later would fail where another wrote in between; one that says so waits
    db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("writes") else "BEGIN")


def _answer_in_time(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_S)


def _wait_no_longer(db: Connection) -> None:
    if db.get_execution_options().get("writes"):
        db.exec_driver_sql(f"SET LOCAL lock_timeout = {BUSY_MS}")


def _file_of(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return None
    return Path(url.database)
