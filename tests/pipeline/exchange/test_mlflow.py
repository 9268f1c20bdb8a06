"""Registered model versions, on a real MLflow server; what a server can do wrong, on a small one of ours."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from artifacts.client import Client
from artifacts.errors import StoreUnusable
from pipeline.errors import ExchangeFailed, ExchangeRefused
from pipeline.exchange import exchange, mlflow
from pipeline.exchange.mlflow_push import model_name
from pipeline.process.host import Host
from tests.pipeline.exchange.conftest import NAME
from tests.servers import mlflow as server

API = "api/2.0/mlflow"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server.serve(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def ask(address: str, path: str, **query):
    answer = httpx.get(f"{address}/{API}/{path}", params=query, timeout=60)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.mark.slow
def test_a_version_goes_to_mlflow_whole_and_comes_back(
    address: str, client: Client, elsewhere: Client, host: Host
):
    told = []
    pushed = exchange.push(
        NAME, f"mlflow:{address}", client, None, lambda done, total: told.append((done, total))
    )
    assert pushed.where == f"mlflow:{address}#team.tiny_fp8/1"
    assert told[-1][0] == told[-1][1] > 0

    version = ask(address, "model-versions/get", name="team.tiny_fp8", version="1")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert (version["status"], tags["enginery.version"], tags["enginery.verdict"]) == (
        "READY",
        f"{NAME}:1",
        "PASS",
    )
    assert version["description"].startswith("# team/tiny_fp8:1\n")
    run = ask(address, "runs/get", run_id=version["run_id"])["run"]
    metrics = {one["key"]: one["value"] for one in run["data"]["metrics"]}
    assert (run["info"]["status"], metrics) == ("FINISHED", {"kl": 0.012, "tokens_per_s/64": 4210.5})

    again = exchange.push(NAME, f"mlflow:{address}", client, None)
    assert (again.where, again.facts["new"]) == (pushed.where, False)

    made = exchange.import_version(f"mlflow:{address}#team.tiny_fp8/1", "team/theirs", elsewhere, host)
    ours = client.store.manifest(client.resolve(NAME).engine_key)
    assert elsewhere.store.manifest(made.key).files == ours.files
    record = elsewhere.resolve("team/theirs")
    assert (record.verdict, record.source["licence"]) == ("UNVERIFIED", "apache-2.0")
    assert record.source["imported"]["model"] == "team.tiny_fp8/1"
    newest = exchange.import_version(f"mlflow:{address}#team.tiny_fp8", "team/theirs", elsewhere, host)
    assert (newest.key, newest.number) == (made.key, 1)


@pytest.mark.slow
def test_what_mlflow_refuses_is_said_in_its_words(
    address: str, client: Client, elsewhere: Client, host: Host
):
    with pytest.raises(ExchangeFailed, match=r"HTTP 404 RESOURCE_DOES_NOT_EXIST: .*nobody"):
        exchange.import_version(f"mlflow:{address}#nobody/7", "team/x", elsewhere, host)
    with pytest.raises(ExchangeRefused, match="numbers versions itself"):
        exchange.push(NAME, f"mlflow:{address}#tiny/3", client, None)


@contextmanager
def answering(*answers):
    """A server that gives these answers in turn, the last one for ever; yields its address and what was asked."""
    asked, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append((self.command, self.path, self.headers.get("authorization")))
            status, body = left.pop(0) if len(left) > 1 else left[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET  # noqa: N815 names that the library calls

        def log_message(self, *_) -> None:
            """Keeps quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_a_failure_that_passes_is_waited_out(impatient: None):
    with answering((503, b""), (500, b"oops"), (200, {"ok": 1})) as (address, asked):
        connected = mlflow.connect(address)
        with connected.client:
            assert connected.get("mlflow/x") == {"ok": 1}
    assert len(asked) == 3


def test_one_that_stays_ends_with_words(impatient: None):
    with answering((503, b"")) as (address, _):
        connected = mlflow.connect(address)
        with connected.client, pytest.raises(ExchangeFailed, match="HTTP 503, 4 times in a row"):
            connected.get("mlflow/x")
    connected = mlflow.connect(address)
    with connected.client, pytest.raises(ExchangeFailed, match="ConnectError, 4 times in a row"):
        connected.get("mlflow/x")


def test_something_else_than_mlflow_is_told(impatient: None):
    with answering((200, b"<html>")) as (address, _):
        connected = mlflow.connect(address)
        with connected.client, pytest.raises(ExchangeFailed, match="no answer of an MLflow server"):
            connected.get("mlflow/x")


def test_credentials_come_from_the_environment_and_stay_out_of_messages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    with answering((401, b"")) as (address, asked):
        connected = mlflow.connect(address)
        with connected.client, pytest.raises(ExchangeFailed, match="set MLFLOW_TRACKING_TOKEN") as caught:
            connected.get("mlflow/x")
    assert asked[0][2] == "Bearer hush"
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a//b"])
def test_a_listed_name_that_leads_elsewhere_is_refused(
    elsewhere: Client, host: Host, name: str, tmp_path: Path
):
    version = {"model_version": {"name": "m", "version": "1", "source": "mlflow-artifacts:/1/a"}}
    listed = {"files": [{"path": name, "is_dir": False, "file_size": 1}]}
    answers = answering((200, version), (200, listed))
    with answers as (address, _), pytest.raises(ExchangeRefused, match="nothing was imported"):
        exchange.import_version(f"mlflow:{address}#m/1", "team/x", elsewhere, host)
    assert not list(tmp_path.rglob("out"))


VERSION = {"model_version": {"name": "m", "version": "1", "source": "mlflow-artifacts:/1/a"}}


def listed(**sizes) -> dict[str, Any]:
    return {"files": [{"path": name, "is_dir": False, "file_size": size} for name, size in sizes.items()]}


def test_a_file_that_is_longer_than_listed_is_not_written_whole(elsewhere: Client, host: Host):
    files = listed(**{"engine.json": 3})
    refusal = pytest.raises(ExchangeFailed, match=r"engine\.json is listed with 3 bytes, and more come")
    answers = answering((200, VERSION), (200, files), (200, b"{}" + b" " * (8 << 20)))
    with answers as (address, asked), refusal:
        exchange.import_version(f"mlflow:{address}#m/1", "team/x", elsewhere, host)
    assert len(asked) == 3
    assert not any((elsewhere.store.root / "import").glob("*"))


def test_more_than_the_disk_has_is_refused_before_the_first_byte(elsewhere: Client, host: Host):
    files = listed(**{"engine.json": 2, "rank0.engine": 1 << 60})
    needed = 2 * ((1 << 60) + 2)
    refusal = pytest.raises(StoreUnusable, match=rf"needs {needed:,} bytes, and [\d,]+ are free")
    with answering((200, VERSION), (200, files)) as (address, asked), refusal:
        exchange.import_version(f"mlflow:{address}#m/1", "team/x", elsewhere, host)
    assert len(asked) == 2


def test_folders_without_end_and_names_that_clash_are_refused(elsewhere: Client, host: Host):
    deeper = {"files": [{"path": f"d{number}", "is_dir": True} for number in range(200)]}
    clash = listed(**{"engine.json": 2, "Engine.json": 2})
    for answer, said in ((deeper, "more than 10,000 files"), (clash, "differ only by case")):
        answers = answering((200, VERSION), (200, answer))
        with answers as (address, _), pytest.raises(ExchangeRefused, match=said):
            exchange.import_version(f"mlflow:{address}#m/1", "team/x", elsewhere, host)


def test_files_that_the_server_does_not_pass_on_are_told(elsewhere: Client, host: Host):
    version = {"model_version": {"name": "m", "version": "1", "source": "s3://bucket/a?sig=hush"}}
    told = pytest.raises(ExchangeRefused, match=r"files are at s3:, .*--serve-artifacts")
    with answering((200, version)) as (address, _), told as caught:
        exchange.import_version(f"mlflow:{address}#m/1", "team/x", elsewhere, host)
    assert "hush" not in str(caught.value)


def test_slashes_become_dots(client: Client):
    assert model_name(client.resolve(NAME)) == "team.tiny_fp8"
