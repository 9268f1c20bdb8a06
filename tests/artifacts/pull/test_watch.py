"""Following an alias: what is current is always whole, and a rollback costs no transfer."""

import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from artifacts import digest
from artifacts.client import Client
from artifacts.errors import NotFound
from artifacts.pull.watch import CURRENT, watch
from artifacts.registry.registry import Publication
from artifacts.store.local import LocalStore


@pytest.fixture
def client(store: LocalStore, put: Callable[..., None]) -> Client:
    """Three versions of one name; @prod is at the first."""
    client = Client(str(store.root))
    for number in (1, 2, 3):
        key = digest.of_json(number)
        put(key, {"engine.json": str(number).encode()})
        client.registry.publish(
            Publication(name="demo/fp8", engine_key=key, recipe={"n": number}, verdict="PASS", facts={})
        )
    client.registry.promote("demo/fp8", "prod", to=1, expect=None)
    return client


def moving(client: Client, *numbers: int):
    """A sleep during which the alias moves to the next of the numbers."""
    path = [1, *numbers]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        at = len(waits)
        waits.append(seconds)
        if at + 1 < len(path):
            client.registry.promote("demo/fp8", "prod", to=path[at + 1], expect=path[at])

    return sleep, waits


def content(tmp_path: Path) -> str:
    return (tmp_path / CURRENT / "engine.json").read_text()


def test_each_version_an_alias_moves_to_becomes_current_and_the_last_two_stay(client: Client, tmp_path: Path):
    sleep, _ = moving(client, 2, 3)
    dest = tmp_path / "served"
    changes = islice(watch(client, "demo/fp8@prod", dest, sleep=sleep), 3)
    seen = [(change.record.number, content(dest)) for change in changes]
    assert seen == [(1, "1"), (2, "2"), (3, "3")]
    assert sorted(path.name for path in dest.iterdir()) == ["2", "3", CURRENT]


def test_a_rollback_pulls_nothing_unless_what_is_there_is_damaged(client: Client, tmp_path: Path):
    sleep, _ = moving(client, 2, 1, 2)
    changes = watch(client, "demo/fp8@prod", tmp_path, sleep=sleep)
    first = next(changes).directory
    kept = (first / "engine.json").stat().st_ino
    second = next(changes).directory
    assert next(changes).directory == first
    assert (first / "engine.json").stat().st_ino == kept
    (second / "engine.json").write_text("9")  # as long as before: only its digest tells
    next(changes)
    assert content(tmp_path) == "2"


def test_a_damaged_store_leaves_what_is_current_and_is_looked_at_again(
    client: Client, tmp_path: Path, store: LocalStore, caplog: pytest.LogCaptureFixture
):
    sleep, waits = moving(client, 2)
    bad = store.path(digest.of_json(2)) / "engine.json"
    right = bad.read_bytes()

    def mend(seconds: float) -> None:
        sleep(seconds)
        if len(waits) == 1:
            bad.chmod(0o644)
            bad.write_bytes(b"x")
        elif len(waits) == 3:
            bad.write_bytes(right)

    changes = watch(client, "demo/fp8@prod", tmp_path, every_s=1.0, sleep=mend)
    assert next(changes).record.number == 1
    with caplog.at_level(logging.WARNING):
        assert next(changes).record.number == 2
    assert waits == [1.0, 2.0, 4.0]
    assert f"{tmp_path / CURRENT} stays unchanged, next attempt in 2 s" in caplog.text


@pytest.mark.parametrize("reference", ["demo/fp8:1", "demo/fp8", "demo/fp8@canary"])
def test_only_an_alias_that_exists_can_be_watched(client: Client, tmp_path: Path, reference: str):
    with pytest.raises(NotFound, match=reference):
        next(watch(client, reference, tmp_path))
