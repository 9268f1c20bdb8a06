"""What a registry URL looks like on its way to a worker."""

from pathlib import Path

from pipeline.flows.deployments import public_url, restore_password

SECRET = "postgresql+psycopg://build:s3cret@db.example.org:5433/enginery"


def test_a_password_does_not_travel():
    assert public_url(SECRET) == "postgresql+psycopg://build@db.example.org:5433/enginery"


def test_a_password_in_the_query_does_not_travel_either():
    assert (
        public_url("postgresql://db/enginery?password=s3cret&sslmode=require")
        == "postgresql://db/enginery?sslmode=require"
    )


def test_the_worker_puts_its_own_password_back():
    assert restore_password(public_url(SECRET), own=SECRET) == SECRET


def test_another_database_of_the_worker_is_not_taken_instead():
    other = "postgresql+psycopg://build@elsewhere/enginery"
    assert restore_password(other, own=SECRET) == other


def test_without_a_registry_the_one_beside_the_store_is_meant():
    assert restore_password(None, own=None) is None


def test_a_database_file_travels_by_its_absolute_path():
    assert public_url("sqlite:///some/registry.db") == f"sqlite:///{Path.cwd()}/some/registry.db"
