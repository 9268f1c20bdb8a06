"""Every kind of event reaches a webhook by the command that made it, signed."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from artifacts.digest import of_json
from artifacts.errors import PolicyRefused
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.version import KINDS
from pipeline.cli.main import enginery
from pipeline.pages.web.registry_view import Reading
from tests.pipeline.export.published import ENGINE_FP8_TP2, write_engine

pytestmark = pytest.mark.slow

SOON_S = 60.0


class Receiver:
    """A webhook that takes only what is signed with its secret."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.forged: list[str] = []
        self.secret = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                try:
                    told = Webhook(receiver.secret).verify(body, dict(self.headers.items()))
                except WebhookVerificationError as exc:
                    receiver.forged.append(str(exc))
                    raise
                receiver.heard.append(told)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def wait_for(self, kind: str) -> dict[str, Any]:
        """The first event of a kind; it comes from another process, a moment later."""
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            for one in list(self.heard):
                if one["type"] == f"enginery.{kind}":
                    return one["data"]
            time.sleep(0.05)
        raise AssertionError(f"heard no {kind}; heard {[one['type'] for one in self.heard]}")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    serving = threading.Thread(target=made.server.serve_forever, daemon=True)
    serving.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    serving.join()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with the engines of four versions of `demo`, of which nothing is published yet."""
    made = LocalStore(tmp_path / "store")
    for number in range(1, 5):
        with made.write(of_json(number), kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.engine").write_text(str(number))
    return made


def publish(store: LocalStore, number: int) -> None:
    key = of_json(number)
    open_registry(store.registry_url).publish(
        Publication(name="demo", engine_key=key, recipe={"n": number}, verdict="PASS", facts={},
                    manifest_digest=store.manifest(key).digest)
    )  # fmt: skip


def test_every_command_that_makes_an_event_has_it_told(
    store: LocalStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ENGINERY_REGISTRY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def ask(*args: str) -> None:
        enginery(["--store", str(store.root), *args], standalone_mode=False)

    for number in range(1, 5):
        publish(store, number)
    secret = tmp_path / "secret"
    ask("registry", "subscribe", "--new-secret", str(secret))
    receiver.secret = secret.read_text().strip()
    ask("registry", "subscribe", "--webhook", receiver.url, "--secret", f"file:{secret}")
    ask("registry", "policy", "prod", "--no-open-waivers", "--max-age-days", "0.00000001")
    assert receiver.wait_for("policy_set")["detail"]["alias"] == "prod"
    with pytest.raises(PolicyRefused):
        ask("promote", "demo:2", "prod")
    assert receiver.wait_for("refused")["version"] == "demo:2"
    ask("registry", "waive", "demo:3", "prod", "max_age_days", "--reason", "agreed", "--for", "1d")
    assert receiver.wait_for("waived")["detail"]["reason"] == "agreed"
    ask("promote", "demo:1", "candidate")
    ask("promote", "demo:4", "candidate")
    assert receiver.wait_for("alias_moved")["version"] == "demo:1"
    ask("rollback", "demo@candidate")
    assert receiver.wait_for("rolled_back")["version"] == "demo:1"
    ask("trust", "keygen", str(tmp_path / "key"), "--no-passphrase")
    ask("trust", "sign", "demo:4", "--key", str(tmp_path / "key"))
    assert receiver.wait_for("signed")["version"] == "demo:4"
    ask("store", "gc", "--yes", "--keep-last", "1", "--min-age", "0", "--keep-pulled", "0")
    assert receiver.wait_for("collected")["version"] == "demo:2"
    ask("registry", "stale", "--offline", "--all")
    assert receiver.wait_for("rebuild_needed")["name"] == "demo"
    write_engine(ENGINE_FP8_TP2, tmp_path / "foreign")
    ask("registry", "import", str(tmp_path / "foreign"), "foreign")
    assert receiver.wait_for("published")["version"] == "foreign:1"
    assert receiver.forged == []
    assert {one["type"] for one in receiver.heard} == {f"enginery.{kind}" for kind in KINDS}


def test_what_is_changed_over_http_is_announced_too(store: LocalStore):
    told: list[str] = []
    reading = Reading(store.registry_url, store, lambda: told.append("told"))
    publish(store, 1)
    reading.promote("demo:1", "prod", expect=None)
    publish(store, 2)
    reading.promote("demo:2", "prod", expect=1)
    reading.rollback("demo", "prod", expect=2)
    assert told == ["told"] * 3
