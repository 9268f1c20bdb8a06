"""The registry's database: opened by URL, made on the first write, its refusals said in words."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, ProgrammingError
from sqlalchemy.pool import NullPool

from artifacts import tables
from artifacts.disk import FullDiskSaid, UnwritableSaid, free_bytes
from artifacts.errors import StoreUnknown, StoreUnusable

BUSY_MS = 30_000
"""How long a writer waits for another; a publication takes milliseconds."""

CREATION = 0x656E67696E
"""Number of the PostgreSQL lock under which tables are made; any, as long as it stays the same."""


class Database:
    """Transactions on one database; reading one that does not exist yet is for the caller to avoid."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ready = False
        self.url = engine.url.render_as_string(hide_password=True)

    def exists(self) -> bool:
        """Whether its tables are there; a schema of another version is a StoreUnusable."""
        path = _file_of(self._engine.url)
        if not self._ready and (path is None or path.exists()):
            with self.reading() as db:
                # a process killed while it made the file may have left one without tables
                self._ready = inspect(db).has_table(tables.schema.name) and self._is_ours(db)
        return self._ready

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment."""
        with self._said(), self._engine.begin() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all or nothing; in SQLite it holds the one write lock from its start."""
        if not self.exists():
            self._create()
        with self._said(), self._engine.execution_options(writes=True).begin() as db:
            yield db

    def _create(self) -> None:
        path = _file_of(self._engine.url)
        if path is not None:
            with FullDiskSaid(path.parent, "the registry"), UnwritableSaid(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        # two first users take turns: each looks what exists only once it holds the write lock
        with self._said(), self._engine.execution_options(writes=True).begin() as db:
            if self._engine.dialect.name == "postgresql":  # which has no write lock of the whole database
                db.execute(select(func.pg_advisory_xact_lock(CREATION)))
            tables.METADATA.create_all(db)
            if db.scalar(select(func.count()).select_from(tables.schema)) == 0:
                db.execute(insert(tables.schema).values(number=tables.SCHEMA_VERSION))
        self._ready = True

    def _is_ours(self, db: Connection) -> bool:
        found = db.scalar(select(tables.schema.c.number))
        if found != tables.SCHEMA_VERSION:
            raise StoreUnusable(
                f"registry {self.url} has schema {found}, and this version reads {tables.SCHEMA_VERSION}; "
                "use the version of enginery that wrote it"
            )
        return True

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError):  # not the database's state: a conflict, or our bug
            raise
        except DatabaseError as exc:
            path, said = _file_of(self._engine.url), " ".join(str(exc.orig).split())
            free = "" if path is None else f" ({free_bytes(path):,} bytes are free there)"
            raise StoreUnusable(
                f"registry {self.url} cannot be used: {said}{free}; check that it is there and can be written"
            ) from exc


def open_database(url_or_path: str | Path) -> Database:
    """The database at a URL, or in an SQLite file; an unknown kind or a missing driver is a StoreUnknown."""
    text = str(url_or_path)
    shown = re.sub(r"(?<=://)[^/@]*@", "***@", text)  # a password has no place in messages and logs
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=str(Path(text).expanduser()))
        engine = create_engine(url, poolclass=NullPool)  # nothing stays open across forks and long builds
    except (ArgumentError, NoSuchModuleError) as exc:
        raise StoreUnknown(
            f"registry {shown!r}: {exc}; give sqlite:///FILE or postgresql+psycopg://..."
        ) from None
    except ModuleNotFoundError as exc:
        raise StoreUnknown(
            f"registry {shown!r} needs the module {exc.name}; install it beside enginery"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    database = Database(engine)
    database.exists()
    return database


def _leave_transactions_to_us(connection: sqlite3.Connection, _: Any) -> None:
    # The journal stays the default one: a write-ahead log could not be read from a read-only mount, as
    # consumers have it, and publications are too few for its speed to matter.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(db: Connection) -> None:
    # one that reads first and writes later would fail where another wrote in between; one that says so waits
    db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("writes") else "BEGIN")


def _file_of(url: URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
