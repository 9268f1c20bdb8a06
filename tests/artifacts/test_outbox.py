"""The outbox: what is told, to whom, how often, by whom."""

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from artifacts.errors import NotFound
from artifacts.notify.deliver import deliver_due
from artifacts.notify.message import Deliver, Outcome, message_id
from artifacts.notify.outbox import CLAIM_S, WAITS_S, Due, Outbox, _like
from artifacts.notify.subscription import Way
from artifacts.registry import tables
from artifacts.registry.database import connect, open_database
from artifacts.registry.registry import Metric, Publication, Registry, open_registry
from tests.present import present

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a registry: in SQLite, or of both kinds, one after the other, where a test asks for them."""
    both = "database_url" in request.fixturenames
    url = request.getfixturevalue("database_url") if both else f"sqlite:///{tmp_path / 'registry.db'}"
    connect(url).create()
    return url


on_both = pytest.mark.usefixtures("database_url")


@pytest.fixture
def registry(url: str) -> Registry:
    return open_registry(url)


@pytest.fixture
def outbox(url: str) -> Outbox:
    return Outbox(open_database(url))


@pytest.fixture
def publish(registry: Registry) -> Callable[..., int]:
    def add(name: str = "demo/fp8", **more: Any) -> int:
        seed = len(registry.versions(name)) if name in registry.names() else 0
        return registry.publish(
            Publication(name=name, engine_key=f"{seed:064x}", recipe={"n": seed}, verdict="PASS", facts={},
                        metrics=[Metric("speed", 1.0)], **more)
        )  # fmt: skip

    return add


class Heard:
    """A subscriber that answers as it is told to and remembers what it heard."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.heard: list[Due] = []

    def __call__(self, due: Due) -> Outcome:
        self.heard.append(due)
        return self.answers.pop(0) if self.answers else Outcome()


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def ways(tell: Deliver) -> dict[Way, Deliver]:
    return {"command": tell, "webhook": tell}


@on_both
def test_a_subscriber_hears_what_happens_from_then_on_once_and_in_order(
    outbox: Outbox, publish: Callable[..., int]
):
    publish()
    number = outbox.subscribe("command", "hook")
    publish(alias="prod")
    heard = Heard()
    deliver_due(outbox, ways(heard), at(NOW))
    assert [(due.event.kind, due.event.detail.get("number", due.event.detail.get("now"))) for due in heard.heard] == [
        ("published", 2), ("alias_moved", 2),
    ]  # fmt: skip
    assert deliver_due(outbox, ways(heard), at(NOW)) == []
    assert {(one.subscription, one.state, one.attempts) for one in outbox.deliveries()} == {
        (number, "told", 1)
    }


@on_both
def test_kinds_and_names_say_what_a_subscriber_hears(outbox: Outbox, publish: Callable[..., int]):
    outbox.subscribe("command", "one", kinds=["alias_moved"])
    outbox.subscribe("command", "two", names="demo/*_tp2")
    outbox.subscribe("command", "three", names="[ab]*")
    for name in ("demo/fp8_tp2", "demo/fp8", "a/x", "Demo/x_tp2"):
        publish(name, alias="prod")
    heard = Heard()
    deliver_due(outbox, ways(heard), at(NOW))
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


def test_what_failed_is_tried_again_with_growing_waits_and_then_given_up(
    outbox: Outbox, publish: Callable[..., int]
):
    number = outbox.subscribe("command", "hook")
    publish()
    heard, now, waits = Heard(*[Outcome(problem="refused")] * 20), NOW, []
    while True:
        (tried,) = deliver_due(outbox, ways(heard), at(now))
        if tried.again_at is None:
            break
        waits.append((tried.again_at - now).total_seconds())
        assert deliver_due(outbox, ways(heard), at(tried.again_at - timedelta(seconds=1))) == []
        now = tried.again_at
    assert all(base <= wait <= 1.2 * base for wait, base in zip(waits, WAITS_S, strict=True))
    assert deliver_due(outbox, ways(heard), at(now + timedelta(days=99))) == []
    (one,) = outbox.deliveries()
    assert (one.state, one.attempts, one.problem) == ("given up", len(WAITS_S) + 1, "refused")
    assert outbox.retry(number, now) == 1
    heard.answers.clear()
    assert [one.problem for one in deliver_due(outbox, ways(heard), at(now))] == [""]
    assert [one.state for one in outbox.deliveries()] == ["told"]


def test_a_receiver_that_asks_for_time_gets_it_and_one_that_is_gone_is_left_alone(
    outbox: Outbox, publish: Callable[..., int]
):
    outbox.subscribe("command", "hook")
    publish()
    (tried,) = deliver_due(outbox, ways(Heard(Outcome(problem="busy", wait_s=600))), at(NOW))
    assert tried.again_at == NOW + timedelta(seconds=600)
    (tried,) = deliver_due(outbox, ways(Heard(Outcome(problem="gone", forever=True))), at(tried.again_at))
    assert tried.again_at is None
    assert [one.state for one in outbox.deliveries()] == ["given up"]


def test_one_that_fails_does_not_hold_up_the_others(outbox: Outbox, publish: Callable[..., int]):
    bad, good = outbox.subscribe("command", "bad"), outbox.subscribe("command", "good")
    for _ in range(3):
        publish()
    asked = []

    def tell(due: Due) -> Outcome:
        asked.append(due.subscription.id)
        return Outcome(problem="refused" if due.subscription.id == bad else "")

    deliver_due(outbox, ways(tell), at(NOW))
    assert asked == [bad, good, good, good]


@on_both
def test_a_process_that_dies_while_telling_is_followed_by_another(
    outbox: Outbox, publish: Callable[..., int]
):
    outbox.subscribe("command", "hook")
    publish()
    dead = present(outbox.claim(NOW))
    assert outbox.claim(NOW + timedelta(seconds=CLAIM_S - 1)) is None
    later = present(outbox.claim(NOW + timedelta(seconds=CLAIM_S)))
    assert (dead.attempt, later.attempt, dead.event) == (1, 2, later.event)
    assert message_id(dead.event) == message_id(later.event)
    outbox.failed(dead, NOW, "the dead one wakes up")  # and its word does not count any more
    outbox.delivered(later, NOW)
    (one,) = outbox.deliveries()
    assert (one.state, one.attempts, one.problem) == ("told", 2, None)


@on_both
def test_a_later_event_waits_while_another_process_delivers_an_earlier_one(
    outbox: Outbox, publish: Callable[..., int]
):
    first, second = outbox.subscribe("command", "hook"), outbox.subscribe("command", "other")
    publish()
    publish()
    slow, other = outbox.claim(NOW), outbox.claim(NOW)
    assert [(present(due).subscription.id, present(due).event.seq) for due in (slow, other)] == [
        (first, 1),
        (second, 1),
    ]
    assert outbox.claim(NOW) is None
    outbox.delivered(present(slow), NOW)
    outbox.failed(present(other), NOW, "refused")
    assert [
        (present(due).subscription.id, present(due).event.seq)
        for due in (outbox.claim(NOW), outbox.claim(NOW))
    ] == [
        (first, 2),
        (second, 2),
    ]


TELL = """
import sys
from datetime import UTC, datetime
from artifacts.registry.database import open_database
from artifacts.notify.deliver import deliver_due
from artifacts.notify.message import Outcome
from artifacts.notify.outbox import Outbox
outbox, heard = Outbox(open_database(sys.argv[1])), []
def tell(due):
    heard.append(due.event.seq)
    return Outcome()
input()
deliver_due(outbox, {"command": tell}, lambda: datetime.now(UTC))
print(heard)
"""


def test_several_processes_tell_each_event_once(
    outbox: Outbox, publish: Callable[..., int], together: Callable[..., list[str]], database_url: str
):
    outbox.subscribe("command", "hook")
    for _ in range(12):
        publish()
    heard = [seq for out in together(TELL, 3, database_url) for seq in json.loads(out)]
    assert sorted(heard) == list(range(1, 13))


def test_publishing_neither_waits_for_subscribers_nor_fails_for_them(
    outbox: Outbox, publish: Callable[..., int], registry: Registry
):
    outbox.subscribe("webhook", "http://192.0.2.1/never", secret="env:NOWHERE")
    assert publish(alias="prod") == 1
    assert registry.resolve("demo/fp8@prod").number == 1


@on_both
def test_a_removed_subscriber_is_told_nothing(outbox: Outbox, publish: Callable[..., int]):
    number = outbox.subscribe("command", "hook")
    publish()
    due = outbox.claim(NOW)
    outbox.unsubscribe(number)
    outbox.delivered(present(due), NOW)
    assert outbox.claim(NOW) is None
    assert (outbox.subscriptions(), outbox.deliveries()) == ([], [])
    with pytest.raises(NotFound, match=f"no subscriber {number} in "):
        outbox.unsubscribe(number)


def test_an_event_that_was_numbered_early_and_committed_late_is_told_too(postgres_url: str):
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
        deliver_due(outbox, ways(heard), at(NOW))
    deliver_due(outbox, ways(heard), at(NOW))
    assert [due.event.detail["number"] for due in heard.heard] == [2, 1]
