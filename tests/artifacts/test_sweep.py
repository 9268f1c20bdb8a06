"""Collections of a local store: what goes, what stays, and what is said of it afterwards."""

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from artifacts import digest
from artifacts.client import Client
from artifacts.collection import sweep
from artifacts.collection.inventory import Inventory
from artifacts.collection.marking import Policy
from artifacts.collection.places import LocalPlace
from artifacts.errors import LeaseLost, NotFound, PolicyRefused, StoreMismatch, StoreUnusable
from artifacts.registry import tables
from artifacts.registry.database import open_database
from artifacts.registry.retention import Names
from artifacts.store.local import LocalStore
from tests.artifacts.sweeping import EAGER, collect, names, on_disk, publish


def test_a_store_keeps_what_is_promised_and_frees_what_is_said(store: LocalStore, put: Callable[..., None]):
    for n in range(1, 5):
        put(f"{n:064x}", {"own": bytes([n]) * 1000, "shared": b"s" * 5000})
        publish(store, n, f"{n:064x}", alias="prod")
    blob = store.blobs.path(digest.of_file(store.path(f"{1:064x}") / "own"))
    assert blob.exists()
    before, dry = on_disk(store.root), collect(store, dry_run=True)
    assert on_disk(store.root) == before
    plan = collect(store)
    assert plan.as_dict() == {**dry.as_dict(), "removed": plan.as_dict()["removed"]}
    assert [one.reference for one in plan.collected] == ["demo:1", "demo:2"]
    assert {one.key for one in plan.removed} == {f"{n:064x}" for n in (1, 2)}
    assert before - on_disk(store.root) == plan.freed_bytes > 2000
    assert plan.freed_bytes < 5000
    assert store.keys() == [f"{n:064x}" for n in (3, 4)]
    assert not blob.exists()
    assert list(map(store.verify, store.keys())) == [[], []]
    assert list((store.root / "staging").iterdir()) == []


def test_what_was_collected_is_remembered_and_said_to_who_pulls_it(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str, tmp_path: Path
):
    put(key, {"a": b"a"})
    put(other_key, {"a": b"b"})
    publish(store, 1, key)
    publish(store, 2, other_key, alias="prod")
    collect(store)
    client = Client(store.root)
    assert client.resolve("demo:1").collected_at is not None
    assert [one.kind for one in client.registry.events("demo")].count("collected") == 1
    with pytest.raises(NotFound, match=r"demo:1: gc removed its files on 20.*; build its recipe again"):
        client.pull("demo:1", tmp_path / "pulled")
    assert client.pull("demo@prod", tmp_path / "pulled").is_dir()
    assert collect(store).collected == ()
    with pytest.raises(PolicyRefused, match="gc removed its files on"):
        client.registry.promote("demo", "prod", to=1, expect=2)
    put(key, {"a": b"a"})
    publish(store, 1, key)
    assert client.resolve("demo:1").collected_at is None
    assert client.pull("demo:1", tmp_path / "again").is_dir()


def test_what_shares_bytes_with_what_went_is_not_read_again(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"shared": b"s" * 1000})
    put(other_key, {"shared": b"s" * 1000, "own": b"o"})
    publish(store, 1, key, alias="prod")
    for path in store.root.rglob("shared"):
        os.utime(path, (1, 1))  # long settled
    time.sleep(digest.RACY_NS / 1e9 + 0.1)
    assert store.intact(key)
    shared = store.path(key) / "shared"
    assert shared in store.digests.known([shared])
    assert len(collect(store).removed) == 1
    assert shared in store.digests.known([shared])


def test_what_was_pulled_lately_stays(store: LocalStore, put: Callable[..., None], key: str, tmp_path: Path):
    put(key, {"a": b"a"})
    publish(store, 1, key)
    Client(store.root).pull("demo:1", tmp_path / "pulled")
    plan = collect(store, Policy(keep_last=0, keep_pulled_days=1, min_age_days=0))
    assert [one.reasons for one in plan.versions] == [("pulled 0.0 days ago",)]
    assert store.has(key)


def test_litter_goes_and_what_is_not_ours_stays(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"a"})
    publish(store, 1, key, alias="prod")
    for folder in ("partial", "quarantine", "hub", "notes"):
        (store.root / folder / "x").mkdir(parents=True)
        (store.root / folder / "x" / "file").write_bytes(b"x" * 10)
    tuning = digest.of_json({"tp": 2})
    with store.write("e" * 64, kind="engine", step={"params": {"tp": 2}}, host={}) as draft:
        (draft.path / "a").write_bytes(b"e")
    publish(store, 2, "e" * 64, alias="tuned")
    for found in (tuning, "f" * 64):
        (store.root / "tuning" / found).mkdir(parents=True)
    for one in (key, other_key):
        store.log(one).write_text("log")
    (store.root / "objects" / "notes").mkdir()
    assert collect(store, Policy(litter_days=1, min_age_days=0)).litter == ()
    plan = collect(store)
    assert {one.place for one in plan.litter} == {
        "partial/x", "quarantine/x", "hub/x", f"tuning/{'f' * 64}", f"logs/{other_key}.log"}  # fmt: skip
    assert (store.root / "notes" / "x" / "file").exists()
    assert (store.root / "objects" / "notes").exists()
    assert [path.name for path in (store.root / "tuning").iterdir()] == [tuning]
    assert store.log(key).exists()
    assert not store.log(other_key).exists()
    assert not (store.root / "hub" / "x").exists()


def test_the_registry_has_to_be_this_stores(
    store: LocalStore, put: Callable[..., None], key: str, tmp_path: Path
):
    put(key, {"a": b"a"})
    absent = Names(open_database(tmp_path / "absent.db"), inside=False)
    with pytest.raises(
        NotFound, match=r"no registry at .*absent\.db, so gc cannot tell which versions to keep"
    ):
        sweep.collect(LocalPlace(store), absent, EAGER)
    publish(store, 1, key)
    unbound = Names(open_database(store.registry_url), inside=False)
    with pytest.raises(
        StoreUnusable, match="is bound to no store yet, so its versions may be of another one"
    ):
        sweep.collect(LocalPlace(store), unbound, EAGER)
    with open_database(store.registry_url).writing() as db:
        db.execute(
            insert(tables.store).values(
                id="another", url="file:///other", bound_at="2026-01-01T00:00:00+00:00"
            )
        )
    with pytest.raises(StoreMismatch, match="names artifacts of store another"):
        collect(store)
    assert store.has(key)


def test_a_sweep_that_others_think_dead_removes_nothing_more(
    store: LocalStore, put: Callable[..., None], key: str, monkeypatch: pytest.MonkeyPatch
):
    put(key, {"a": b"a"})

    class Slow(LocalPlace):
        def inventory(self, now: datetime, progress) -> Inventory:
            found = super().inventory(now, progress)
            time.sleep(0.3)
            return found

    monkeypatch.setattr("artifacts.store.lease.TTL_S", 0.1)
    monkeypatch.setattr("artifacts.store.lease.RENEWALS", 0.01)  # as if the thread did not run
    with pytest.raises(LeaseLost):
        sweep.collect(Slow(store), names(store), EAGER)
    assert store.has(key)
