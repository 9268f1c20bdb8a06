"""What a registry URL looks like on its way to a worker."""

from pathlib import Path

from pipeline.flows.registry_url import shown, usable

SECRET = "postgresql+psycopg://build:s3cret@db.example.org:5433/enginery"


def test_a_password_does_not_travel():
    assert shown(SECRET) == "postgresql+psycopg://build@db.example.org:5433/enginery"


def test_a_password_in_the_query_does_not_travel_either():
    assert (
        shown("postgresql://db/enginery?password=s3cret&sslmode=require")
        == "postgresql://db/enginery?sslmode=require"
    )


def test_the_worker_puts_its_own_password_back():
    assert usable(shown(SECRET), own=SECRET) == SECRET


def test_another_database_of_the_worker_is_not_taken_instead():
    other = "postgresql+psycopg://build@elsewhere/enginery"
    assert usable(other, own=SECRET) == other


def test_without_a_registry_the_one_beside_the_store_is_meant():
    assert usable(None, own=None) is None


def test_a_database_file_travels_by_its_absolute_path():
    assert shown("sqlite:///some/registry.db") == f"sqlite:///{Path.cwd()}/some/registry.db"
