"""Databases that cannot be used, what is said of them, and what is never shown."""

import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from artifacts.errors import StoreUnknown, StoreUnusable
from artifacts.registry import log
from artifacts.registry.database import connect, mask_secrets, open_database
from artifacts.registry.registry import Publication, open_registry

ONE = Publication(
    name="demo/fp8", engine_key="1" * 64, recipe={}, verdict="PASS", facts={}, alias="candidate"
)


def plain(url: str) -> str:
    """The URL as PostgreSQL's own programs write it."""
    return url.replace("+psycopg", "")


def test_a_server_without_the_schema_is_refused_with_the_command_that_makes_it(postgres_url: str):
    with pytest.raises(
        StoreUnusable, match=r"has no schema yet; make it once with: enginery .* registry init"
    ):
        open_database(postgres_url)
    with psycopg.connect(plain(postgres_url)) as db:
        assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_users_who_make_a_schema_at_once_make_one(database_url: str):
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(lambda: connect(database_url).create()) for _ in range(4)]:
            made.result()
    assert open_database(database_url).schema() == 3


@pytest.mark.parametrize("prefix", ["postgresql://", "postgres://"])
def test_urls_of_servers_are_taken_as_other_programs_write_them(postgres_url: str, prefix: str):
    url = prefix + postgres_url.partition("://")[2]
    connect(url).create()
    assert open_registry(url).publish(ONE) == 1


def test_a_newer_schema_is_refused_by_number_and_never_touched(registry_url: str):
    with connect(registry_url).writing() as db:
        db.exec_driver_sql("UPDATE schema_version SET number = 99")
    said = (
        "has schema 99, and this version reads 3; use the version of enginery that wrote it, or a later one"
    )
    database = connect(registry_url)
    for ask in (database.exists, database.create, lambda: open_registry(registry_url)):
        with pytest.raises(StoreUnusable, match=said):
            ask()
    with pytest.raises(StoreUnusable, match=said):
        database.upgrade()
    assert database.schema() == 99


def test_a_database_of_another_program_is_left_alone(database_url: str):
    make = "CREATE TABLE schema_version (version VARCHAR(9), installed TEXT)"
    if database_url.startswith("sqlite"):
        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as db:
            db.execute(make)
    else:
        with psycopg.connect(plain(database_url)) as db:
            db.execute(make)
    for ask in (lambda: open_registry(database_url), connect(database_url).create):
        with pytest.raises(
            StoreUnusable, match="has a table 'schema_version' of another program; give enginery"
        ):
            ask()


def test_a_file_of_another_program_is_no_empty_registry(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    for ask in (open_registry, lambda path: connect(path).create()):
        with pytest.raises(StoreUnusable, match="has table 'theirs' of another program"):
            ask(tmp_path / "theirs.db")


def test_an_option_that_no_server_knows_is_said_without_its_value():
    with pytest.raises(StoreUnusable, match='invalid connection option "tokem"') as said:
        open_database("postgresql://u:hidden@127.0.0.1:1/db?tokem=hidden")
    assert "hidden" not in str(said.value)


def test_a_user_without_rights_is_told_so(postgres_url: str):
    connect(postgres_url).create()
    with psycopg.connect(plain(postgres_url), autocommit=True) as db:
        db.execute("DROP ROLE IF EXISTS reader")
        db.execute("CREATE ROLE reader LOGIN PASSWORD 'r3ad'")
        db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    place = postgres_url.partition("@")[2]
    registry = open_registry(f"postgresql+psycopg://reader:r3ad@{place}")
    assert registry.names() == []
    with pytest.raises(
        StoreUnusable, match=r"permission denied .*; check that it is there and can be written"
    ):
        registry.publish(ONE)
    with psycopg.connect(plain(postgres_url), autocommit=True) as db:
        db.execute("DROP OWNED BY reader")
        db.execute("DROP ROLE reader")


def test_a_wrong_password_is_said_without_it(postgres_url: str):
    wrong = f"postgresql://enginery:s3cret%2Fw@{postgres_url.partition('@')[2]}"
    with pytest.raises(StoreUnusable, match="password authentication failed") as caught:
        open_registry(wrong)
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"postgresql://me:s3cret@127.0.0.1:{probe.getsockname()[1]}/x"
        with pytest.raises(
            StoreUnusable, match=r"registry postgresql\+psycopg://me@127.* cannot be used"
        ) as caught:
            open_registry(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:t0ken@nowhere.invalid/x?connect_timeout=1",
        "postgresql://me:to/t0ken@nowhere.invalid:port/x",
        "postgresql://me@nowhere.invalid/x?password=t0ken&connect_timeout=1",
        "postgresql://me@nowhere.invalid/x?connect_timeout=1&options=-c%20x%3Dt0ken",
        "mysql+mysqldb://me:t0ken@host/x",
        "mysql+mysqldb://me@host/x?password=t0ken",
        "nope://t0ken@host/x",
        "s3://key:t0ken@bucket/x",
    ],
)
def test_what_opens_a_registry_is_never_shown(url: str):
    with pytest.raises((StoreUnknown, StoreUnusable)) as caught:
        open_registry(url)
    assert "t0ken" not in str(caught.value)


def test_a_url_is_shown_without_what_opens_it(postgres_url: str):
    connect(postgres_url).create()
    shown = open_registry(postgres_url).url
    assert "***" not in shown
    assert shown.startswith("postgresql+psycopg://enginery@127.0.0.1:")
    assert mask_secrets("a sqlite:///plain/file.db stays") == "a sqlite:///plain/file.db stays"


def test_a_reader_of_a_server_sees_one_moment(postgres_url: str):
    """Of a file too, whose readers keep writers out until they are done."""
    connect(postgres_url).create()
    registry, database = open_registry(postgres_url), connect(postgres_url)
    registry.publish(ONE)
    count = "SELECT count(*) FROM version"
    with database.reading() as db:
        before = db.exec_driver_sql(count).scalar()
        registry.publish(
            Publication(name="demo/fp8", engine_key="2" * 64, recipe={}, verdict="PASS", facts={})
        )
        assert db.exec_driver_sql(count).scalar() == before == 1
    with database.reading() as db:
        assert db.exec_driver_sql(count).scalar() == 2


def test_events_of_a_server_appear_in_the_order_of_their_numbers(postgres_url: str):
    """Who has seen an event finds none with a smaller number later: who adds one waits for the last to end."""
    connect(postgres_url).create()
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(plain(postgres_url), autocommit=True) as watch:
        with connect(postgres_url).writing() as db:
            log.record(db, "demo/slow", "published", {"number": 1})
            later = pool.submit(lambda: open_registry(postgres_url).publish(ONE))
            while watch.execute(waiting).fetchone() == (0,):
                assert not later.done()
            assert open_registry(postgres_url).events() == []
        assert later.result() == 1
    names = [event.name for event in open_registry(postgres_url).events()]
    assert names == ["demo/slow", "demo/fp8", "demo/fp8"]
