"""The commands as a shell runs them: a card in a file, a server until SIGTERM."""

import json
import os
import signal
import socket
import subprocess  # noqa: TID251 tests start programs as a shell would
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from artifacts.registry.registry import Registry
from pipeline.cli.main import enginery
from tests.pipeline.pages.web.conftest import TOKEN
from tests.pipeline.published import NAME
from tests.present import present


def argv(file, *more: str) -> list[str]:
    """A command on the registry."""
    store = str(file.parent / "store")
    return [sys.executable, "-m", "pipeline.cli", "--store", store, "--registry", f"sqlite:///{file}", *more]


@contextmanager
def serving(file, token: str = "", *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server's process and its URL."""
    command = argv(file, "-q", "registry", "serve", "--port", "0", *more)
    environment = os.environ | {"ENGINERY_TOKEN": token}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield child, present(child.stdout).readline().strip()
    finally:
        child.kill()
        child.communicate()


@pytest.mark.slow
def test_a_server_serves_changes_and_stops_when_it_is_told_to(file: Path, registry: Registry):
    with serving(file, TOKEN) as (child, url), httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        page = client.get("/")
        assert NAME in page.text
        assert "server" not in page.headers
        body = {"reference": f"{NAME}:3", "alias": "prod", "expect": 2}
        assert client.post("/api/v1/promote", json=body).status_code == 401
        answer = client.post("/api/v1/promote", json=body, headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.json()["number"] == 3
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (0, ""), err
        assert TOKEN not in err
    assert registry.aliases(NAME)["prod"] == 3


@pytest.mark.slow
def test_it_listens_where_it_is_told_with_the_token_of_a_file(file: Path, registry: Registry, tmp_path: Path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ("--host", "127.0.0.2", "--token-file", str(tmp_path / "token"))
    with serving(file, "", *options) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        assert url.startswith("http://127.0.0.2:")
        body = {"reference": f"{NAME}:3", "alias": "prod", "expect": 2}
        assert client.post("/api/v1/promote", json=body).status_code == 401
        answer = client.post("/api/v1/promote", json=body, headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.json()["number"] == 3


def run(file: Path, *more: str) -> Result:
    """A command in this process."""
    store = str(file.parent / "store")
    return CliRunner().invoke(enginery, ["--store", store, "--registry", f"sqlite:///{file}", *more])


def test_an_address_that_is_taken_is_said(file: Path, registry: Registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(file, "registry", "serve", "--port", str(port))
    assert type(result.exception).__name__ == "AddressUnusable"
    assert f"cannot listen on 127.0.0.1 port {port}: " in str(result.exception)


def test_a_weak_token_starts_no_server(file: Path, registry: Registry, tmp_path: Path):
    (tmp_path / "token").write_text("short")
    result = run(file, "registry", "serve", "--port", "0", "--token-file", str(tmp_path / "token"))
    assert type(result.exception).__name__ == "TokenUnusable"


def test_a_card_is_printed_or_written(file: Path, registry: Registry, tmp_path: Path):
    printed = run(file, "card", f"{NAME}@prod")
    assert printed.stdout.startswith(f"# {NAME}:2\n")
    for name, beginning in (("card.md", f"# {NAME}:2\n"), ("card.html", "<!doctype html>")):
        (tmp_path / name).write_text("what was there before")
        written = run(file, "card", f"{NAME}:2", "-o", str(tmp_path / name))
        assert written.output == f"{tmp_path / name} is the card of {NAME}:2\n"
        assert (tmp_path / name).read_text().startswith(beginning)
    assert (tmp_path / "card.md").read_text() == printed.stdout
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    answer = json.loads(run(file, "--json", "card", NAME).stdout)
    assert (answer["reference"], answer["markdown"][:2]) == (f"{NAME}:3", "# ")


def test_a_card_of_another_kind_is_refused(file: Path, registry: Registry, tmp_path: Path):
    result = run(file, "card", NAME, "-o", str(tmp_path / "card.pdf"))
    assert (result.exit_code, "ends in neither .md nor .html" in result.output) == (2, True)


def test_a_card_that_cannot_be_written_is_said(file: Path, registry: Registry, tmp_path: Path):
    result = run(file, "card", NAME, "-o", str(tmp_path / "no" / "card.md"))
    assert type(result.exception).__name__ == "StoreUnusable"
    assert "cannot be written: no such file or directory" in str(result.exception)


@pytest.mark.parametrize("command", ["card", "serve-registry"])
@pytest.mark.parametrize("command", ["card", "registry serve"])
def test_help_needs_no_registry(file: Path, command: str):
    result = run(file, *command.split(), "--help")
    assert (result.exit_code, "Example: enginery" in result.output) == (0, True)
