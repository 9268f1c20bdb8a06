"""Stores on disks that are full to the last byte, or the last inode: real ones."""

import dataclasses
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from artifacts.client import Client, verify_pulled
from artifacts.errors import StoreUnusable
from artifacts.registry import tables
from artifacts.registry.registry import open_registry
from artifacts.store import reserve
from artifacts.store.cached import CachedStore
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.remote.remote_place import parse
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.scratch import scratch
from tests.artifacts.remotes import FAST
from tests.artifacts.sweeping import EAGER, collect, publish
from tests.disks import fill, mounted, take_inodes
from tests.servers.s3 import Bucket

pytestmark = pytest.mark.slow

WEIGHTS = os.urandom(3 << 20)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "64m", request.param) as where:
        yield where


@pytest.fixture
def full(disk: Path, put: Callable[..., None], key: str, other_key: str) -> LocalStore:
    """A store with a published version and an artifact that nobody needs, on a disk without a byte left."""
    store = open_store(disk / "store")
    with store.lease([key], "a build"):
        put(key, {"weights": WEIGHTS, "engine.json": b"{}"}, into=store)
        put(other_key, {"weights": WEIGHTS[::-1]}, into=store)
        publish(store, 1, key, alias="prod")
    fill(disk / "ballast")
    return store


def pieces(store: LocalStore) -> int:
    """Of the reserve, that are there in whole."""
    found = (store.root / "reserve").glob("*")
    return sum(path.stat().st_size == reserve.PIECE_BYTES for path in found)


def test_a_collection_frees_a_full_disk(full: LocalStore, disk: Path, key: str, other_key: str):
    plan = collect(full)
    assert [one.key for one in plan.removed] == [other_key]
    assert full.keys() == [key]
    assert full.verify(key) == []
    assert full.free_bytes() > len(WEIGHTS) - (1 << 20)
    assert pieces(full) == reserve.PIECES


def test_a_version_is_pulled_from_a_full_store_and_the_pull_is_recorded(full: LocalStore, tmp_path: Path):
    client = Client(str(full.root))
    pulled = client.pull("demo@prod", tmp_path / "engine")
    assert verify_pulled(pulled) == []
    with client.registry.database.reading() as db:
        assert db.scalars(select(tables.pulled.c.times)).all() == [1]


def test_a_full_disk_takes_locks_leases_decisions_and_quarantine_again_and_again(
    full: LocalStore, disk: Path, key: str
):
    """Somebody takes whatever is free after each: the reserve is back before anybody can."""
    registry = open_registry(full.registry_url)
    for number in range(5):
        with full.lease([key], "a run") as held, full.lock(key):
            full.prepare()
            assert (full.id, held.renew()) is not None
            held.require()
        registry.promote("demo", f"alias-{number}", to=1, expect=None)
        fill(disk / f"ballast-{number}")
    assert len(registry.aliases("demo")) == 6
    full.discard(key)
    assert not full.has(key)
    assert pieces(full) > reserve.PIECES // 2


def test_a_lease_on_a_full_disk_stays_fresh(
    full: LocalStore, disk: Path, key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("artifacts.store.lease.TTL_S", 0.4)
    with full.lease([key], "a run") as held:
        for number in range(5):
            fill(disk / f"more-{number}")
            time.sleep(0.2)
        held.require()


def test_a_full_disk_without_a_reserve_is_named_with_its_mount(full: LocalStore, disk: Path, key: str):
    for piece in (full.root / "reserve").iterdir():
        piece.unlink()
    fill(disk / "rest")
    said = (
        rf"disk full: a lease needs 262,144 bytes, and [\d,]+ are free at {full.root}, "
        rf"on the disk mounted at {disk}; free 2[\d,]+ bytes more there$"
    )
    with pytest.raises(StoreUnusable, match=said), full.lease([key], "a run"):
        pytest.fail("held")
    with pytest.raises(StoreUnusable, match=said):
        collect(full)


def test_without_a_reserve_a_version_is_pulled_and_what_a_killed_build_left_makes_room_for_gc(
    full: LocalStore, disk: Path, key: str, other_key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for piece in (full.root / "reserve").iterdir():
        piece.unlink()
    with scratch(full.root / "staging", "killed") as draft:
        (draft / "half").write_bytes(os.urandom(1 << 20))
        litter = draft.parent.rename(full.root / "staging" / "dead")  # nobody holds its lock from here on
    fill(disk / "rest")
    assert verify_pulled(Client(str(full.root)).pull("demo@prod", tmp_path / "engine")) == []
    assert "the pull of demo:1 runs without a lease" in caplog.text
    assert [one.key for one in collect(full).removed] == [other_key]
    assert not litter.exists()
    assert pieces(full) == reserve.PIECES


@pytest.mark.parametrize("rows", [1, 5000])
def test_without_a_reserve_the_digests_that_are_remembered_make_room_for_gc(
    full: LocalStore, disk: Path, key: str, other_key: str, rows: int
):
    """As in a store of 0.1: no reserve, no drafts of the dead, and a disk without a byte left."""
    for piece in (full.root / "reserve").iterdir():
        piece.unlink()
    with closing(sqlite3.connect(full.digests.cache)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS inode (inode TEXT PRIMARY KEY, signature TEXT, sha256 TEXT)")
        db.executemany("INSERT INTO inode VALUES (?, '', '')", [(f"{row:064}",) for row in range(rows)])
    fill(disk / "rest")
    assert [one.key for one in collect(full).removed] == [other_key]
    assert full.verify(key) == []
    assert full.intact(key)
    assert pieces(full) == reserve.PIECES


def test_a_build_that_does_not_fit_says_how_much_more_is_needed_and_that_gc_may_help(
    full: LocalStore, key: str
):
    said = (
        r"disk full: engine 0{12} needs 50,000,000 bytes, and [\d,]+ are free at .*; free [\d,]+ bytes more"
        rf" there \(`enginery --store {full.root} store gc` shows what can go\), or choose another store"
    )
    with (
        pytest.raises(StoreUnusable, match=said),
        full.write("0" * 64, kind="engine", step={}, host={}, needed_bytes=50_000_000),
    ):
        pytest.fail("built")


def test_a_disk_without_an_inode_left_is_collected_and_read(
    tmp_path: Path, put: Callable[..., None], key: str, other_key: str
):
    with mounted(tmp_path / "disk", "64m", inodes=200) as disk:
        store = open_store(disk / "store")
        with store.lease([key], "a build"):
            put(key, {"weights": WEIGHTS}, into=store)
            put(other_key, {f"part-{number}": bytes([number]) for number in range(20)}, into=store)
            publish(store, 1, key, alias="prod")
        take_inodes(disk / "small")
        with pytest.raises(OSError, match="No space left"):
            (disk / "another").touch()
        assert verify_pulled(Client(str(store.root)).pull("demo", tmp_path / "engine")) == []
        assert [one.key for one in collect(store).removed] == [other_key]
        (disk / "another").touch()


def test_the_cache_of_a_remote_store_is_full(
    bucket: Bucket, disk: Path, tmp_path: Path, put: Callable[..., None], key: str, other_key: str
):
    """A pull to another disk needs nothing of it; a fetch evicts what was used longest ago."""
    remote = RemoteStore(parse(bucket.url), FAST, part_bytes=1 << 20)
    maker = CachedStore(remote, tmp_path / "maker")
    put(key, {"weights": WEIGHTS}, into=maker)
    put(other_key, {"weights": WEIGHTS[::-1]}, into=maker)
    store = CachedStore(remote, disk / "cache", idle_s=0.0)
    with store.lease([key], "a run"):
        store.directory(key)
    fill(disk / "ballast")
    target = tmp_path / "into"
    target.mkdir()
    with store.reading([other_key], "a pull"):
        store.bring(store.manifest(other_key), target)
    assert (target / "weights").read_bytes() == WEIGHTS[::-1]
    os.utime(store.path(key), (1, 1))
    with store.lease([other_key], "a run"):
        assert (store.directory(other_key) / "weights").read_bytes() == WEIGHTS[::-1]
    assert not store.local.has(key)
    assert store.verify(key) == []


def test_a_small_disk_and_a_directory_that_is_no_store_get_no_reserve(
    tmp_path: Path, put: Callable[..., None], key: str
):
    with mounted(tmp_path / "disk", "8m") as disk:
        store = open_store(disk / "store")
        with store.lease([key], "a run"):
            put(key, {"a": b"1"}, into=store)
        assert not (store.root / "reserve").exists()
    open_registry(tmp_path / "elsewhere" / "registry.db").counts()
    reserve.keep(tmp_path / "elsewhere")
    reserve.make_room(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "reserve").exists()


def test_what_killed_processes_left_of_a_reserve_is_mended(
    store: LocalStore, put: Callable[..., None], key: str
):
    with store.lease([key], "a run"):
        put(key, {"a": b"1"})
    (store.root / "reserve" / "probe.1.1").write_bytes(b"1")
    (store.root / "reserve" / "03").write_bytes(b"half")
    (store.root / "reserve" / "07").unlink()
    with store.lease([key], "a run"):
        pass
    assert pieces(store) == len(list((store.root / "reserve").iterdir())) == reserve.PIECES


def test_a_reserve_is_no_part_of_what_a_store_holds(store: LocalStore, put: Callable[..., None], key: str):
    with store.lease([key], "a run"):
        put(key, {"a": b"1"})
    assert pieces(store) == reserve.PIECES
    plan = collect(store, dataclasses.replace(EAGER), dry_run=True)
    assert (plan.litter, [one.key for one in plan.removed]) == ((), [key])
