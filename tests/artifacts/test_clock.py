"""A clock that was set back: no age limit is passed by it, what was over stays over, and nothing stays for ever."""

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from artifacts.collection.marking import Policy
from artifacts.notify.outbox import Outbox
from artifacts.registry.database import open_database
from artifacts.registry.registry import open_registry
from artifacts.store.local import LocalStore
from artifacts.store.scratch import sweep_old
from tests import clock
from tests.artifacts.sweeping import collect, publish
from tests.callables import Cli, Finished

DAY_S = 86400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clock.library(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def at(
    cli: Cli, store: LocalStore, put: Callable[..., None], key: str, made: Path
) -> Callable[..., Finished]:
    """Runs a command on a host whose clock is so many days ahead; `demo:1` was published today."""
    put(key, {"a": b"a"})
    publish(store, 1, key)

    def run(days: float, *command: str) -> Finished:
        shifted: dict[str, Any] = clock.shifted(made, days)
        return cli("--store", store.root, *command, **shifted)

    assert run(0, "registry", "policy", "prod", "--max-age-days", "30").returncode == 0
    return run


def test_an_age_limit_that_was_passed_once_is_passed_by_no_clock_that_is_set_back(
    at: Callable[..., Finished],
):
    old = at(40, "promote", "demo:1", "prod")
    assert old.returncode == 3
    assert "max_age_days: it was published 40.0 days ago, and at most 30 are allowed" in old.stderr
    again = at(10, "promote", "demo:1", "prod")
    assert again.returncode == 3
    assert "max_age_days: the clock says 20" in again.stderr
    assert "UTC: this clock was set back, or that one was ahead, so the age is unknown" in again.stderr
    assert (
        at(
            10, "registry", "waive", "demo:1", "prod", "max_age_days", "--reason", "agreed", "--for", "60d"
        ).returncode
        == 0
    )
    assert at(10, "promote", "demo:1", "prod").returncode == 0


def test_a_version_from_the_future_has_no_age(
    at: Callable[..., Finished], put: Callable[..., None], other_key: str, store: LocalStore
):
    behind = at(-10, "promote", "demo:1", "prod")
    assert behind.returncode == 3
    assert "so the age is unknown; if this clock is wrong, correct it" in behind.stderr
    assert at(20, "promote", "demo:1", "prod").returncode == 0  # what is young enough still passes


def test_one_command_by_a_clock_that_was_ahead_is_named_with_what_can_be_done(
    at: Callable[..., Finished], store: LocalStore
):
    assert at(5, "registry", "policy", "staging", "--max-age-days", "9").returncode == 0
    now = at(0, "promote", "demo:1", "prod")
    assert now.returncode == 3
    assert re.search(r"and event \d+, by \S+@\S+, is of 20\d\d-\d\d-\d\d \d\d:\d\d UTC", now.stderr)
    assert "wait until then, or `enginery registry waive NAME:NUMBER ALIAS max_age_days" in now.stderr
    short = at(
        0,
        "registry",
        "waive",
        "demo:1",
        "prod",
        "max_age_days",
        "--reason",
        "a clock was ahead",
        "--for",
        "2d",
    )
    assert "is over; give a later moment than 20" in short.stderr
    waived = at(
        0,
        "registry",
        "waive",
        "demo:1",
        "prod",
        "max_age_days",
        "--reason",
        "a clock was ahead",
        "--for",
        "9d",
    )
    assert waived.returncode == 0
    assert at(0, "promote", "demo:1", "prod").returncode == 0


def test_an_event_of_no_believable_year_costs_itself_only(at: Callable[..., Finished], store: LocalStore):
    with closing(sqlite3.connect(store.root / "registry.db")) as db, db:
        db.execute("DROP TRIGGER event_no_update")
        db.execute("UPDATE event SET at = '9999-12-31T23:59:59+00:00' WHERE seq = 1")
    assert at(0, "promote", "demo:1", "prod").returncode == 0


def test_a_waiver_that_was_over_stays_over(at: Callable[..., Finished], store: LocalStore):
    asked = ("registry", "waive", "demo:1", "prod", "verdict", "--reason", "agreed", "--for", "2d")
    assert at(40, *asked).returncode == 0
    assert len(json.loads(at(41, "--json", "registry", "waive").stdout)) == 1
    assert (
        at(50, "registry", "policy", "staging", "--max-age-days", "9").returncode == 0
    )  # something happens, after its end
    assert json.loads(at(41, "--json", "registry", "waive").stdout) == []
    assert at(41, *asked).returncode == 2  # until 43, and it is 50 at least
    assert "is over; give a later moment" in at(41, *asked).stderr


def test_what_a_clock_that_was_ahead_wrote_begins_to_age(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"a"})
    put(other_key, {"a": b"b"})
    publish(store, 1, other_key, alias="prod")
    partial = store.partial(key)
    partial.mkdir(parents=True)
    (partial / "layer").write_bytes(b"x")
    ahead = time.time() + 400 * DAY_S
    for path in (store.path(key), partial, partial / "layer"):
        os.utime(path, (ahead, ahead))
    collect(store, Policy(keep_last=1, min_age_days=7, litter_days=7))
    assert store.has(key)  # how old it is nobody knows: it is given the whole time
    for path in (store.path(key), partial, partial / "layer"):
        assert abs(path.stat().st_mtime - time.time()) < 600
    os.utime(partial / "layer", (ahead, ahead))
    assert sweep_old(store.root / "partial", DAY_S) == []
    for path in (partial, partial / "layer", store.path(key), store.path(key) / "manifest.json"):
        os.utime(path, (time.time() - 9 * DAY_S,) * 2)
    assert sweep_old(store.root / "partial", DAY_S) == [partial]
    assert [one.key for one in collect(store, Policy(keep_last=1, min_age_days=7)).removed] == [key]


def test_a_subscriber_does_not_wait_for_a_clock_that_was_ahead(
    store: LocalStore, put: Callable[..., None], key: str
):
    put(key, {"a": b"a"})
    publish(store, 1, key)
    outbox = Outbox(open_database(store.registry_url))
    outbox.subscribe("command", "/bin/true")
    open_registry(store.registry_url).promote("demo", "prod", to=1, expect=None)
    now = datetime.now(UTC)
    ahead = now + timedelta(days=400)
    due = outbox.claim(ahead)
    assert due is not None
    outbox.failed(due, ahead, "no answer")
    again = outbox.claim(now)
    assert again is not None
    assert (again.event, again.attempt) == (due.event, 2)
    assert outbox.claim(now) is None  # it is taken
