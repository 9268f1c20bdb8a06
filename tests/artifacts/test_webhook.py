"""Webhooks as a receiver sees them."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from artifacts.notify import webhook
from artifacts.notify.message import Outcome, body
from artifacts.notify.outbox import Due
from artifacts.notify.subscription import Subscription
from artifacts.version import Event
from tests.present import present

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(ThreadingHTTPServer):
    """A receiver that answers as it is told to, and remembers each request."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/a-secret-path"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((dict(self.headers.items()), content))
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        if status == 0:  # hang up
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def due_at(url: str, *, secret: str = "env:HOOK_SECRET", name: str = "demo/fp8") -> Due:
    event = Event(seq=7, at=NOW, name=name, kind="published", by="me@here", detail={"number": 3})
    subscription = Subscription(id=1, way="webhook", target=url, secret=secret, kinds=(), names="*", after_seq=0,
                                added_at=NOW, added_by="me")  # fmt: skip
    return Due(subscription=subscription, event=event, attempt=1)


@pytest.fixture
def hook_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.mark.usefixtures("hook_secret")
def test_a_receiver_verifies_the_webhook_with_the_standard_library_for_it(receiver: Receiver):
    assert webhook.post_event(due_at(receiver.url, name="dém\u202eo/fp8")) == Outcome()
    ((headers, content),) = receiver.requests
    said = Webhook(SECRET).verify(content, headers)
    assert said == {
        "type": "enginery.published", "timestamp": NOW.isoformat(),
        "data": {"seq": 7, "name": "dém\u202eo/fp8", "version": "dém\u202eo/fp8:3", "by": "me@here", "detail": {"number": 3}},
    }  # fmt: skip
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(content.replace(b"published", b"unpublish"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(content, headers)


@pytest.mark.usefixtures("hook_secret")
@pytest.mark.parametrize(
    ("status", "headers", "said", "wait_s", "forever"),
    [
        (500, {}, "answers 500", None, False),
        (503, {"Retry-After": "120"}, "answers 503", 120, False),
        (429, {"Retry-After": "soon"}, "answers 429", None, False),
        (302, {"Location": "http://127.0.0.1:9/"}, "redirects are not followed", None, False),
        (410, {}, "wants no further attempts", None, True),
        (0, {}, "RemoteProtocolError; check that this host can reach it", None, False),
    ],
)
def test_what_a_receiver_answers_is_an_answer(
    receiver: Receiver, status: int, headers: dict[str, Any], said: str, wait_s: int | None, forever: bool
):
    receiver.answers.append((status, headers))
    answer = webhook.post_event(due_at(receiver.url))
    assert said in answer.problem
    assert (answer.wait_s, answer.forever) == (wait_s, forever)
    assert len(receiver.requests) == 1
    assert "secret-path" not in answer.problem


@pytest.mark.usefixtures("hook_secret")
def test_a_date_to_come_back_at_is_understood(receiver: Receiver):
    receiver.answers.append(
        (503, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=90))})
    )
    assert 60 < present(webhook.post_event(due_at(receiver.url)).wait_s) <= 90


@pytest.mark.usefixtures("hook_secret")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://nowhere.invalid/x", "env:UNSET_URL", "http://a\u0000b/x"]
)
def test_an_address_that_cannot_be_reached_is_a_problem_and_no_crash(url: str):
    assert webhook.post_event(due_at(url)).problem


def test_a_secret_that_is_missing_or_none_is_a_problem_and_no_crash(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    assert "env:HOOK_SECRET is empty or not set" in webhook.post_event(due_at(receiver.url)).problem
    monkeypatch.setenv("HOOK_SECRET", "whsec_é")
    assert "is not a webhook secret" in webhook.post_event(due_at(receiver.url)).problem
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOK_URL", receiver.url)
    assert webhook.post_event(due_at("env:HOOK_URL")) == Outcome()
    assert len(receiver.requests) == 1


def test_the_body_says_no_version_where_there_is_none():
    event = Event(seq=1, at=NOW, name="demo", kind="refused", by="me", detail={"number": None})
    assert json.loads(body(event))["data"]["version"] is None
