"""A real PostgreSQL for the tests of a session, and a new database in it for each test."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.required import missing

USER = "enginery"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a running server's maintenance database, with the password of its superuser."""
    programs = _programs()
    root = Path(tempfile.mkdtemp(prefix="enginery-postgres-", dir=tempfile.gettempdir()))
    password, port = secrets.token_hex(12), _free_port()
    (root / "password").write_text(password)
    as_user = _own(root)
    try:
        _make(programs, as_user, root)
        options = f"-F -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={root}"
        control = [*as_user, str(programs / "pg_ctl"), "-D", str(root / "data"), "-w"]
        subprocess.run(
            [*control, "-l", str(root / "log"), "-o", options, "start"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=root,
        )
        try:
            yield f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                [*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=root
            )
    finally:
        shutil.rmtree(root)


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """URL of an empty database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    yield f"{postgres.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as db:
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def _programs() -> Path:
    """Where PostgreSQL's programs are; without them the tests are skipped, or fail where CI needs them."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).resolve().parent
    if not found:
        missing("no PostgreSQL server programs here (Debian: apt-get install postgresql)")
    return max(found, key=lambda path: int(path.parent.name))


def _own(root: Path) -> list[str]:
    """Gives the directory to a user that PostgreSQL starts under, which root is not; how to become it."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    for path in (root, *root.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["runuser", "-u", user.pw_name, "--"]


def _make(programs: Path, as_user: list[str], root: Path) -> None:
    initdb = [*as_user, str(programs / "initdb"), "-D", str(root / "data"), "-U", USER, "-E", "UTF8"]
    options = ["--locale=C", "--no-sync", "--auth=scram-sha-256", f"--pwfile={root / 'password'}"]
    subprocess.run([*initdb, *options], check=True, stdout=subprocess.DEVNULL, cwd=root)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
