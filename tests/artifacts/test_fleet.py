"""Machines that share one remote store and one registry: builders, pullers and gc, working and killed at once."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.client import Client, verify_pulled
from artifacts.errors import StoreMismatch
from artifacts.store.cached import CachedStore
from tests.artifacts.caches import commit
from tests.artifacts.fleets import Fleet, collect, engine
from tests.artifacts.remotes import PART, opened
from tests.artifacts.sweeping import age, finished, go, ready
from tests.forked import Forked
from tests.servers.s3 import Bucket

BUILDER = """
import random, sys, time
from pathlib import Path
from artifacts.store.cached import CachedStore
from artifacts.registry.registry import Binding, Publication, open_registry
from tests.artifacts.caches import commit
from tests.artifacts.fleets import engine
from tests.artifacts.remotes import opened
url, cache, registry, turns, number = sys.argv[1:]
store, registry, chance = CachedStore(opened(url), Path(cache)), open_registry(registry), random.Random(number)
input()
for turn in range(int(turns)):
    key, files = engine(chance.randrange(6))
    with store.lease([key], "a build") as held:
        if not store.has(key):
            commit(store, key, files)
        store.push(key)
        assert store.remote.has(key), "swept under a lease"
        held.require()
        registry.publish(Publication(name="demo", alias=f"by-{number}", engine_key=key,
            manifest_digest=store.manifest(key).digest, recipe={"at": [number, turn]}, verdict="PASS", facts={}),
            store=Binding(store.id, store.url))
print("built", flush=True)
"""

PULLER = """
import os, sys, tempfile, time
from pathlib import Path
from artifacts.client import Client
from artifacts.errors import NotFound
url, cache, registry, turns, number = sys.argv[1:]
os.environ["ENGINERY_CACHE"] = cache
pulled = 0
input()
while pulled < int(turns):
    with tempfile.TemporaryDirectory() as folder:
        client = Client(url, registry)
        try:
            engine = client.pull("demo", Path(folder, "engine"))
        except NotFound:  # not published yet, or collected before we came
            time.sleep(0.02)
            continue
        assert client.verify(engine) == []
        pulled += 1
print(pulled, flush=True)
"""

SWEEPER = """
import sys
from tests.artifacts.fleets import collect
input()
while True:
    collect(sys.argv[1], sys.argv[2])
"""

UNNEEDED = "0" * 64


@pytest.fixture
def fleet(bucket: Bucket, registry_url: str, tmp_path: Path) -> Fleet:
    """A fleet whose first version, of no alias, is not needed."""
    made = Fleet(bucket, registry_url, CachedStore(opened(bucket.url), tmp_path / "here"))
    commit(made.here, UNNEEDED, {"engine.json": b"{}"})
    made.publish(UNNEEDED)
    return made


def test_builders_and_pullers_on_other_machines_lose_nothing_to_a_sweep_that_never_rests(
    fleet: Fleet, start: Callable[..., Forked], tmp_path: Path
):
    machines = [(BUILDER, 8, 0), (BUILDER, 8, 1), (PULLER, 3, 2)]
    workers = [
        ready(start, code, fleet.url, tmp_path / f"machine-{n}", fleet.registry_url, turns, n)
        for code, turns, n in machines
    ]
    go(*workers)
    removed = 0
    while any(worker.poll() is None for worker in workers):
        removed += len(fleet.collect().removed)
    built, again, pulled = finished(*workers)
    assert (built, again, pulled, removed > 0) == ("built", "built", "3", True)
    age(fleet.bucket.root)  # a write that the server carried out late, after its lease had ended, dies so
    fleet.collect()
    fleet.require_nothing_else(fleet.kept())


def test_machines_killed_at_any_moment_leave_only_what_the_next_sweep_takes(
    fleet: Fleet, start: Callable[..., Forked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chance = random.Random(5)
    for turn in range(2):
        victims = [
            ready(
                start,
                code,
                fleet.url,
                tmp_path / f"machine-{turn}-{n}",
                fleet.registry_url,
                10_000,
                10 * turn + n,
            )
            for n, code in enumerate((BUILDER, BUILDER, PULLER))
        ]
        victims.append(ready(start, SWEEPER, fleet.url, fleet.registry_url))
        go(*victims)
        while f"by-{10 * turn}" not in fleet.registry.aliases("demo"):
            assert victims[0].poll() is None, victims[0].stderr.read()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        for victim in victims:
            victim.kill()
            victim.wait()
        age(fleet.bucket.root)
    fleet.collect()
    fleet.collect()
    kept = fleet.kept()
    assert kept
    fleet.require_nothing_else(kept)
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "fresh"))
    assert verify_pulled(Client(fleet.url, fleet.registry_url).pull("demo", tmp_path / "engine")) == []


def test_what_was_swept_and_is_in_a_cache_is_pushed_again_in_whole(fleet: Fleet):
    key, files = engine(1)
    commit(fleet.here, key, files)
    assert {one.key for one in fleet.collect().removed} == {key, UNNEEDED}
    assert fleet.bucket.objects("blobs") == fleet.bucket.objects("manifests") == []
    assert fleet.here.local.has(key)
    with fleet.here.lease([key], "a build"):
        fleet.here.push(key)
        fleet.publish(key, "prod")
    fleet.collect()
    assert fleet.here.remote.verify(key) == []
    there = CachedStore(opened(fleet.url), fleet.here.root.parent / "there")
    assert (there.directory(key) / "rank0.bin").read_bytes() == files["rank0.bin"]


def test_a_sweep_cut_short_after_the_manifest_leaves_nothing_that_a_push_trusts(fleet: Fleet):
    """The long file's index is gone, its parts are half there: the push sends what is missing."""
    key, files = engine(2)
    commit(fleet.here, key, files)
    record = fleet.here.manifest(key).files["rank0.bin"]
    at = f"blobs/{record.sha256[:2]}/{record.sha256}"
    (fleet.bucket.root / f"manifests/{key[:2]}/{key}.json").unlink()
    (fleet.bucket.root / f"{at}.json").unlink()
    parts = fleet.bucket.objects(f"{at}.parts")
    (fleet.bucket.root / parts[1]).unlink()
    fleet.here.push(key)
    assert fleet.here.remote.verify(key) == []


LEASED = """
import os, sys
from pathlib import Path
from artifacts.client import Client
url, cache, registry, target = sys.argv[1:]
os.environ["ENGINERY_CACHE"] = cache
told = False
def progress(done, total):
    global told
    if not told:
        told = True
        print("moving", flush=True)
        input()
Client(url, registry).pull("demo@prod", Path(target), progress=progress)
print("pulled", flush=True)
"""


def test_a_pull_elsewhere_holds_its_lease_where_gc_here_sees_it(
    fleet: Fleet, start: Callable[..., Forked], tmp_path: Path
):
    """Nobody points at what is being pulled any more, and it stays until it is there."""
    for number in (1, 3, 5):
        key, files = engine(number)
        commit(fleet.here, key, files)
        fleet.publish(key, "prod" if number == 1 else None)
    child = start(LEASED, fleet.url, tmp_path / "elsewhere", fleet.registry_url, tmp_path / "engine")
    assert child.stdout.readline() == "moving\n", child.stderr.read()
    for number in (3, 4):
        fleet.registry.promote("demo", "prod", to=number, expect=fleet.registry.aliases("demo")["prod"])
    plan = fleet.collect()
    assert plan.kept["leased"] == 1
    assert {one.key for one in plan.removed} == {UNNEEDED}
    assert finished_with(child) == "pulled\n"
    assert verify_pulled(tmp_path / "engine") == []
    assert {one.key for one in fleet.collect().removed} == {engine(1)[0]}


def finished_with(child: Forked) -> str:
    """Lets a child go on; returns what it says in the end."""
    out, err = child.communicate("go\n", timeout=60)
    assert child.returncode == 0, err
    return str(out)


def test_the_registry_of_another_store_is_refused_before_anything_is_read_or_deleted(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_files: Callable[[Path], list[str]]
):
    other = CachedStore(opened(f"{fleet.url}-other"), tmp_path / "other")
    commit(other, "1" * 64)
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "caches"))
    before = all_files(fleet.bucket.path)
    with pytest.raises(
        StoreMismatch, match=f"names artifacts of store {fleet.here.id} .*, and this is store {other.id}"
    ):
        collect(other.url, fleet.registry_url)
    with pytest.raises(StoreMismatch, match="use that store, or give this one a registry of its own"):
        Client(other.url, fleet.registry_url).pull("demo", tmp_path / "engine")
    with pytest.raises(StoreMismatch, match="is no store yet; use that store"):
        Client(f"{fleet.url}-third", fleet.registry_url).pull("demo", tmp_path / "engine")
    assert not (tmp_path / "engine").exists()
    assert all_files(fleet.bucket.path) == before


def test_the_cache_keeps_what_a_build_uses_and_evicts_around_it(
    bucket: Bucket, tmp_path: Path, start: Callable[..., Forked]
):
    """A build in another process holds one engine; this one commits until the cache is over its bound."""
    store = CachedStore(opened(bucket.url), tmp_path / "cache", idle_s=0.0, max_bytes=60_000)
    used, files = engine(0)
    commit(store, used, files)
    code = """
import sys
from pathlib import Path
from artifacts.store.cached import CachedStore
from tests.artifacts.remotes import opened
store = CachedStore(opened(sys.argv[1]), Path(sys.argv[2]))
with store.lease([sys.argv[3]], "a build"):
    directory = store.directory(sys.argv[3])
    print("using", flush=True)
    input()
    print(store.local.verify(sys.argv[3]), (directory / "rank0.bin").stat().st_size)
"""
    child = start(code, bucket.url, store.root, used)
    assert child.stdout.readline() == "using\n", child.stderr.read()
    for number in range(2, 12):
        commit(store, engine(number)[0], engine(number)[1])
    assert store.local.has(used)
    assert len(store.local.keys()) < 8
    assert len(store.keys()) == 11
    assert finished_with(child) == f"[] {3 * PART + 5}\n"
    store.cache.shrink(60_000)
    assert not store.local.has(used)
