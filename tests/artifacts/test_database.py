"""Databases that cannot be used, and what is said of them."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from artifacts.database import connect, open_database
from artifacts.errors import StoreUnusable


def test_a_server_without_the_schema_is_refused_with_the_command_that_makes_it(postgres_url):
    with pytest.raises(
        StoreUnusable, match=r"has no schema yet; make it once with: enginery .* registry init"
    ):
        open_database(postgres_url)
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as db:
        assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_users_who_make_a_schema_at_once_make_one(database_url):
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(lambda: connect(database_url).create()) for _ in range(4)]:
            made.result()
    assert open_database(database_url).schema() == 2
