"""Collections of a local store while others build, pull, collect and are killed."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from artifacts.registry.registry import open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from tests.artifacts.sweeping import EAGER, age, collect, finished, go, publish, published, ready
from tests.forked import Forked

BUILDER = """
import random, sys, time
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.opening import open_store
store, turns, number = open_store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
registry, chance = open_registry(store.registry_url), random.Random(number)
input()
for turn in range(turns):
    base, engine = f"{chance.randrange(3):064x}", f"{chance.randrange(100, 110):064x}"
    with store.lease([base, engine], "a build"):
        for key in (base, engine):
            if not store.has(key):
                with store.write(key, kind="k", step={}, host={}) as draft:
                    (draft.path / "w").write_bytes(key.encode() * 100)
            time.sleep(chance.uniform(0, 0.01))
        assert store.intact(base) and store.intact(engine), "collected under a lease"
        registry.publish(Publication(
            name="demo", alias=f"by-{number}", engine_key=engine, recipe={"at": [number, turn]},
            verdict="PASS", facts={}, lineage={"base": base, "engine": engine}))
print("published", flush=True)
"""

PULLER = """
import sys, tempfile, pathlib
from artifacts.client import Client
from artifacts.errors import NotFound
client, turns, number, pulled = Client(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), 0
input()
for turn in range(turns):
    with tempfile.TemporaryDirectory() as folder:
        try:
            engine = client.pull("demo", pathlib.Path(folder) / "engine")
        except NotFound:  # not published yet, or collected before we came
            continue
        assert client.verify(engine) == []
        pulled += 1
print(pulled, flush=True)
"""


def test_builders_and_pullers_lose_nothing_to_a_sweep_that_never_rests(
    store: LocalStore, start: Callable[..., Forked]
):
    workers = [ready(start, BUILDER, store.root, 25, number) for number in range(3)]
    workers.append(ready(start, PULLER, store.root, 40, 0))
    go(*workers)
    removed = 0
    while any(worker.poll() is None for worker in workers):
        removed += len(collect(store).removed)
    assert finished(*workers)[:3] == ["published"] * 3
    assert removed > 5
    collect(store)
    left = {one.engine_key: one for one in collect(store).versions}
    versions = open_registry(store.registry_url).versions("demo")
    assert len(versions) == 75
    assert {f"by-{number}" for number in range(3)} == {alias for one in versions for alias in one.aliases}
    kept = [one for one in versions if one.collected_at is None]
    assert {one.engine_key for one in kept} == left.keys()
    assert store.keys() == sorted({key for one in kept for key in one.lineage.values()})
    assert list(map(store.verify, store.keys())) == [[]] * len(store.keys())
    assert list((store.root / "leases").iterdir()) == []


def test_killed_builders_and_sweeps_leave_only_what_the_next_sweep_takes(
    store: LocalStore, start: Callable[..., Forked], all_files: Callable[[Path], list[str]]
):
    chance = random.Random(5)
    sweeper = f"""
import sys
from artifacts.store import lease
from artifacts.collection import sweep
from artifacts.registry.database import open_database
from artifacts.collection.marking import Policy
from artifacts.collection.places import LocalPlace
from artifacts.registry.retention import Names
from artifacts.store.opening import open_store
store = open_store(sys.argv[1])
lease.TTL_S = 1.0  # so that builders need not wait long for one that was killed
input()
while True:
    sweep.collect(LocalPlace(store), Names(open_database(store.registry_url), inside=True), {EAGER!r})
"""
    for turn in range(3):
        victims = [ready(start, BUILDER, store.root, 10_000, 10 * turn + number) for number in range(2)]
        victims.append(ready(start, sweeper, store.root))
        go(*victims)
        while not published(store.registry_url, 10 * turn):
            assert victims[0].poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        for victim in victims:
            victim.kill()
            victim.wait()
        age(store.root)
    collect(store)
    collect(store)
    kept = [one for one in open_registry(store.registry_url).versions("demo") if one.collected_at is None]
    assert kept
    assert store.keys() == sorted({key for one in kept for key in one.lineage.values()})
    assert list(map(store.verify, store.keys())) == [[]] * len(store.keys())
    sqlite = {"registry.db", "registry.db-journal", "digests.db", "digests.db-journal"}
    # A journal that a killed writer left and nobody wrote after is SQLite's to take, at the next write.
    places = {path.split("/")[0] for path in all_files(store.root)}
    assert places - sqlite == {"objects", "blobs", "store.json"}


def test_two_sweeps_at_once_collect_each_version_once(
    store: LocalStore, put: Callable[..., None], together: Callable[..., list[str]]
):
    for n in range(1, 21):
        put(f"{n:064x}", {"a": bytes([n])})
        publish(store, n, f"{n:064x}", alias="prod")
    code = f"""
import sys
from artifacts.collection import sweep
from artifacts.registry.database import open_database
from artifacts.collection.marking import Policy
from artifacts.collection.places import LocalPlace
from artifacts.registry.retention import Names
from artifacts.store.opening import open_store
store = open_store(sys.argv[1])
input()
plan = sweep.collect(LocalPlace(store), Names(open_database(store.registry_url), inside=True), {EAGER!r})
print(len(plan.collected))
"""
    assert sum(map(int, together(code, 3, store.root))) == 18
    events = open_registry(store.registry_url).events("demo")
    numbers = [event.detail["number"] for event in events if event.kind == "collected"]
    assert sorted(numbers) == list(range(1, 19))
    assert open_store(store.root).keys() == [f"{n:064x}" for n in (19, 20)]
