"""The outbox: what is told, to whom, how often, by whom; and webhooks as a receiver sees them."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert
from standardwebhooks import Webhook, WebhookVerificationError

from artifacts import tables
from artifacts.database import connect, open_database
from artifacts.errors import NotFound, SubscriptionRefused
from artifacts.notify import webhook
from artifacts.notify.deliver import deliver
from artifacts.notify.message import Answer, body, message_id
from artifacts.notify.outbox import CLAIM_S, WAITS_S, Due, Outbox, _like
from artifacts.notify.subscription import Subscription, checked, looked_up, write_secret
from artifacts.registry import Metric, Publication, Registry
from artifacts.version import Event

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def database(request, tmp_path):
    """A registry's database: SQLite, or both kinds, one after the other, where a test asks for them."""
    both = "database_url" in request.fixturenames
    url = request.getfixturevalue("database_url") if both else f"sqlite:///{tmp_path / 'registry.db'}"
    connect(url).create()
    return open_database(url)


on_both = pytest.mark.usefixtures("database_url")


@pytest.fixture
def registry(database) -> Registry:
    return Registry(database)


@pytest.fixture
def outbox(database) -> Outbox:
    return Outbox(database)


@pytest.fixture
def publish(registry) -> Callable[..., int]:
    def add(name: str = "demo/fp8", **more: object) -> int:
        seed = len(registry.versions(name)) if name in registry.names() else 0
        return registry.publish(
            Publication(name=name, engine_key=f"{seed:064x}", recipe={"n": seed}, verdict="PASS", facts={},
                        metrics=[Metric("speed", 1.0)], **more)
        )  # fmt: skip

    return add


class Heard:
    """A subscriber that answers as it is told to and remembers what it heard."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.heard = list(answers), []

    def __call__(self, due: Due) -> Answer:
        self.heard.append(due)
        return self.answers.pop(0) if self.answers else Answer()


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def ways(tell):
    return {"command": tell, "webhook": tell}


@on_both
def test_a_subscriber_hears_what_happens_from_then_on_once_and_in_order(outbox, publish):
    publish()
    number = outbox.subscribe("command", "hook")
    publish(alias="prod")
    heard = Heard()
    deliver(outbox, ways(heard), at(NOW))
    assert [(due.event.kind, due.event.detail.get("number", due.event.detail.get("now"))) for due in heard.heard] == [
        ("published", 2), ("alias_moved", 2),
    ]  # fmt: skip
    assert deliver(outbox, ways(heard), at(NOW)) == []
    assert {(one.subscription, one.state, one.attempts) for one in outbox.deliveries()} == {
        (number, "told", 1)
    }


@on_both
def test_kinds_and_names_say_what_a_subscriber_hears(outbox, publish):
    outbox.subscribe("command", "one", kinds=["alias_moved"])
    outbox.subscribe("command", "two", names="demo/*_tp2")
    outbox.subscribe("command", "three", names="[ab]*")
    for name in ("demo/fp8_tp2", "demo/fp8", "a/x", "Demo/x_tp2"):
        publish(name, alias="prod")
    heard = Heard()
    deliver(outbox, ways(heard), at(NOW))
    told = {(due.subscription.target, due.event.kind, due.event.name) for due in heard.heard}
    assert {name for who, kind, name in told if who == "one"} == {
        "demo/fp8_tp2",
        "demo/fp8",
        "a/x",
        "Demo/x_tp2",
    }
    assert {kind for who, kind, name in told if who == "one"} == {"alias_moved"}
    assert {name for who, _, name in told if who == "two"} == {"demo/fp8_tp2"}
    assert {name for who, _, name in told if who == "three"} == {"a/x"}


@given(st.text("ab*?[]!_%é\n", max_size=6), st.text("ab[]!_%é\n", max_size=6))
def test_the_pattern_of_sql_takes_all_that_the_glob_takes(glob, name):

    if fnmatchcase(name, glob):
        with sqlite3.connect(":memory:") as db:
            assert db.execute("SELECT ? LIKE ? ESCAPE '!'", (name, _like(glob))).fetchone() == (1,)
        db.close()


def test_what_failed_is_tried_again_with_growing_waits_and_then_given_up(outbox, publish):
    number = outbox.subscribe("command", "hook")
    publish()
    heard, now, waits = Heard(*[Answer(problem="refused")] * 20), NOW, []
    while True:
        (tried,) = deliver(outbox, ways(heard), at(now))
        if tried.again_at is None:
            break
        waits.append((tried.again_at - now).total_seconds())
        assert deliver(outbox, ways(heard), at(tried.again_at - timedelta(seconds=1))) == []
        now = tried.again_at
    assert all(base <= wait <= 1.2 * base for wait, base in zip(waits, WAITS_S, strict=True))
    assert deliver(outbox, ways(heard), at(now + timedelta(days=99))) == []
    (one,) = outbox.deliveries()
    assert (one.state, one.attempts, one.problem) == ("given up", len(WAITS_S) + 1, "refused")
    assert outbox.retry(number, now) == 1
    heard.answers.clear()
    assert [one.problem for one in deliver(outbox, ways(heard), at(now))] == [""]
    assert [one.state for one in outbox.deliveries()] == ["told"]


def test_a_receiver_that_asks_for_time_gets_it_and_one_that_is_gone_is_left_alone(outbox, publish):
    outbox.subscribe("command", "hook")
    publish()
    (tried,) = deliver(outbox, ways(Heard(Answer(problem="busy", wait_s=600))), at(NOW))
    assert tried.again_at == NOW + timedelta(seconds=600)
    (tried,) = deliver(outbox, ways(Heard(Answer(problem="gone", forever=True))), at(tried.again_at))
    assert tried.again_at is None
    assert [one.state for one in outbox.deliveries()] == ["given up"]


def test_one_that_fails_does_not_hold_up_the_others(outbox, publish):
    bad, good = outbox.subscribe("command", "bad"), outbox.subscribe("command", "good")
    for _ in range(3):
        publish()
    asked = []

    def tell(due: Due) -> Answer:
        asked.append(due.subscription.id)
        return Answer(problem="refused" if due.subscription.id == bad else "")

    deliver(outbox, ways(tell), at(NOW))
    assert asked == [bad, good, good, good]


@on_both
def test_a_process_that_dies_while_telling_is_followed_by_another(outbox, publish):
    outbox.subscribe("command", "hook")
    publish()
    dead = outbox.claim(NOW)
    assert outbox.claim(NOW + timedelta(seconds=CLAIM_S - 1)) is None
    later = outbox.claim(NOW + timedelta(seconds=CLAIM_S))
    assert (dead.attempt, later.attempt, dead.event) == (1, 2, later.event)
    assert message_id(dead.event) == message_id(later.event)
    outbox.failed(dead, NOW, "the dead one wakes up")  # and its word does not count any more
    outbox.told(later, NOW)
    (one,) = outbox.deliveries()
    assert (one.state, one.attempts, one.problem) == ("told", 2, None)


TELL = """
import sys
from datetime import UTC, datetime
from artifacts.database import open_database
from artifacts.notify.deliver import deliver
from artifacts.notify.message import Answer
from artifacts.notify.outbox import Outbox
outbox, heard = Outbox(open_database(sys.argv[1])), []
def tell(due):
    heard.append(due.event.seq)
    return Answer()
input()
deliver(outbox, {"command": tell}, lambda: datetime.now(UTC))
print(heard)
"""


def test_several_processes_tell_each_event_once(outbox, publish, together, database_url):
    outbox.subscribe("command", "hook")
    for _ in range(12):
        publish()
    heard = [seq for out in together(TELL, 3, database_url) for seq in json.loads(out)]
    assert sorted(heard) == list(range(1, 13))


def test_publishing_neither_waits_for_subscribers_nor_fails_for_them(outbox, publish, registry):
    outbox.subscribe("webhook", "http://192.0.2.1/never", secret="env:NOWHERE")
    assert publish(alias="prod") == 1
    assert registry.resolve("demo/fp8@prod").number == 1


@on_both
def test_a_removed_subscriber_is_told_nothing(outbox, publish):
    number = outbox.subscribe("command", "hook")
    publish()
    due = outbox.claim(NOW)
    outbox.unsubscribe(number)
    outbox.told(due, NOW)
    assert outbox.claim(NOW) is None
    assert (outbox.subscriptions(), outbox.deliveries()) == ([], [])
    with pytest.raises(NotFound, match=f"no subscriber {number} in "):
        outbox.unsubscribe(number)


def test_an_event_that_was_numbered_early_and_committed_late_is_told_too(postgres_url):
    connect(postgres_url).create()
    slow, database = open_database(postgres_url), open_database(postgres_url)
    outbox = Outbox(database)
    outbox.subscribe("command", "hook")
    row = {"at": NOW.isoformat(), "name": "demo", "kind": "published", "by": "me"}
    with slow.writing() as late:
        late.execute(insert(tables.log).values(**row, detail={"number": 1}))
        with database.writing() as db:
            db.execute(insert(tables.log).values(**row, detail={"number": 2}))
        heard = Heard()
        deliver(outbox, ways(heard), at(NOW))
    deliver(outbox, ways(heard), at(NOW))
    assert [due.event.detail["number"] for due in heard.heard] == [2, 1]


@pytest.mark.parametrize(
    ("target", "secret", "kinds", "said"),
    [
        ("ftp://host/x", "env:S", [], "is no URL; give https"),
        ("https://", "env:S", [], "is no URL"),
        ("http://[::1", "env:S", [], "is no URL"),
        ("https://host:99999/", "env:S", [], "is no URL"),
        ("https://me:hunter2@host/x", "env:S", [], "at host has a user or password in it"),
        ("https://host/x?access_token=hunter2", "env:S", [], r"at host has a secret \(access_token\) in it"),
        ("https://host/x?a=1&X-Api-Key=hunter2", "env:S", [], r"a secret \(X-Api-Key\)"),
        ("https://host/x", "whsec_hunter2", [], "a secret is named, never given"),
        ("https://host/x", None, [], "needs a secret to be signed with"),
        ("https://host/x", "env:S", ["publised"], "no kind of event 'publised'; there are published"),
        ("  ", "env:S", [], "nothing to call"),
    ],
)
def test_ways_that_cannot_be_trusted_are_refused_and_no_secret_is_shown(outbox, target, secret, kinds, said):
    with pytest.raises(SubscriptionRefused, match=said) as refused:
        outbox.subscribe("webhook", target, secret=secret, kinds=kinds)
    assert "hunter2" not in str(refused.value)
    assert outbox.subscriptions() == []


def test_commands_are_taken_apart_before_they_are_kept():
    checked("command", "notify-send 'a b'", None, ["published"])
    with pytest.raises(SubscriptionRefused, match="has no closing quotation"):
        checked("command", "notify-send 'a", None, [])
    with pytest.raises(SubscriptionRefused, match="needs no secret"):
        checked("command", "x", "env:S", [])


def test_a_new_secret_is_for_its_owner_and_never_replaced(tmp_path):
    write_secret(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    Webhook(looked_up(f"file:{tmp_path / 's'}", {}))
    with pytest.raises(SubscriptionRefused, match="File exists"):
        write_secret(tmp_path / "s")
    with pytest.raises(SubscriptionRefused, match="env:NO is empty or not set here"):
        looked_up("env:NO", {"NO": " "})
    with pytest.raises(SubscriptionRefused, match="cannot be read here"):
        looked_up(f"file:{tmp_path / 'absent'}", {})


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
def hook_secret(monkeypatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.mark.usefixtures("hook_secret")
def test_a_receiver_verifies_the_webhook_with_the_standard_library_for_it(receiver):
    assert webhook.tell(due_at(receiver.url, name="dém\u202eo/fp8")) == Answer()
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
        (410, {}, "wants no more", None, True),
        (0, {}, "RemoteProtocolError; see that it can be reached", None, False),
    ],
)
def test_what_a_receiver_answers_is_an_answer(receiver, status, headers, said, wait_s, forever):
    receiver.answers.append((status, headers))
    answer = webhook.tell(due_at(receiver.url))
    assert said in answer.problem
    assert (answer.wait_s, answer.forever) == (wait_s, forever)
    assert len(receiver.requests) == 1
    assert "secret-path" not in answer.problem


@pytest.mark.usefixtures("hook_secret")
def test_a_date_to_come_back_at_is_understood(receiver):
    receiver.answers.append(
        (503, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=90))})
    )
    assert 60 < webhook.tell(due_at(receiver.url)).wait_s <= 90


@pytest.mark.usefixtures("hook_secret")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://nowhere.invalid/x", "env:UNSET_URL", "http://a\u0000b/x"]
)
def test_an_address_that_cannot_be_reached_is_a_problem_and_no_crash(url):
    assert webhook.tell(due_at(url)).problem


def test_a_secret_that_is_missing_or_none_is_a_problem_and_no_crash(receiver, monkeypatch):
    assert "env:HOOK_SECRET is empty or not set here" in webhook.tell(due_at(receiver.url)).problem
    monkeypatch.setenv("HOOK_SECRET", "whsec_é")
    assert "holds no webhook secret" in webhook.tell(due_at(receiver.url)).problem
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOK_URL", receiver.url)
    assert webhook.tell(due_at("env:HOOK_URL")) == Answer()
    assert len(receiver.requests) == 1


def test_the_body_says_no_version_where_there_is_none():
    event = Event(seq=1, at=NOW, name="demo", kind="refused", by="me", detail={"number": None})
    assert json.loads(body(event))["data"]["version"] is None
