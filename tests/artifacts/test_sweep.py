"""Collections of real stores, alone and while others build, push, pull and are killed."""

import hashlib
import json
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore as Directory
from sqlalchemy import insert

from artifacts import digest
from artifacts.client import Client
from artifacts.collection import sweep
from artifacts.collection.gc import Policy
from artifacts.collection.places import LocalPlace, RemotePlace
from artifacts.errors import LeaseLost, NotFound, PolicyRefused, StoreMismatch, StoreUnusable
from artifacts.manifest import FileRecord, Manifest, seal
from artifacts.registry import tables
from artifacts.registry.database import open_database
from artifacts.registry.registry import Publication, open_registry
from artifacts.registry.retention import Names
from artifacts.store.local import open_store

EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)


def publish(store, number: int, key: str, **values: object) -> None:
    made = {"name": "demo", "recipe": {"n": number}, "verdict": "PASS", "facts": {"format": "fp8"}}
    open_registry(store.registry_url).publish(Publication(engine_key=key, **{**made, **values}))


def names(store) -> Names:
    return Names(open_database(store.registry_url), inside=True)


def collect(store, policy: Policy = EAGER, **how: bool):
    return sweep.collect(LocalPlace(store), names(store), policy, **how)


def on_disk(root: Path) -> int:
    """Bytes below a directory except the registry; those with several names count once."""
    stats = [path.lstat() for path in root.rglob("*") if path.is_file() and "registry" not in path.name]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


def test_a_store_keeps_what_is_promised_and_frees_what_is_said(store, put):
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


def test_what_was_collected_is_remembered_and_said_to_who_pulls_it(store, put, key, other_key, tmp_path):
    put(key, {"a": b"a"})
    put(other_key, {"a": b"b"})
    publish(store, 1, key)
    publish(store, 2, other_key, alias="prod")
    collect(store)
    client = Client(store.root)
    assert client.resolve("demo:1").collected_at is not None
    assert [one.kind for one in client.registry.events("demo")].count("collected") == 1
    with pytest.raises(NotFound, match=r"demo:1: gc took its files on 20.*; build its recipe again"):
        client.pull("demo:1", tmp_path / "pulled")
    assert client.pull("demo@prod", tmp_path / "pulled").is_dir()
    assert collect(store).collected == ()
    with pytest.raises(PolicyRefused, match="gc took its files on"):
        client.registry.promote("demo", "prod", to=1, expect=2)
    put(key, {"a": b"a"})
    publish(store, 1, key)
    assert client.resolve("demo:1").collected_at is None
    assert client.pull("demo:1", tmp_path / "again").is_dir()


def test_what_shares_bytes_with_what_went_is_not_read_again(store, put, key, other_key):
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


def test_what_was_pulled_lately_stays(store, put, key, tmp_path):
    put(key, {"a": b"a"})
    publish(store, 1, key)
    Client(store.root).pull("demo:1", tmp_path / "pulled")
    plan = collect(store, Policy(keep_last=0, keep_pulled_days=1, min_age_days=0))
    assert [one.reasons for one in plan.versions] == [("pulled 0.0 days ago",)]
    assert store.has(key)


def test_litter_goes_and_what_is_not_ours_stays(store, put, key, other_key):
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


def test_the_registry_has_to_be_this_stores(store, put, key, tmp_path):
    put(key, {"a": b"a"})
    absent = Names(open_database(tmp_path / "absent.db"), inside=False)
    with pytest.raises(NotFound, match=r"no registry at .*absent\.db, so nothing says what is needed"):
        sweep.collect(LocalPlace(store), absent, EAGER)
    publish(store, 1, key)
    unbound = Names(open_database(store.registry_url), inside=False)
    with pytest.raises(
        StoreUnusable, match="is bound to no store yet, so that what it needs may be elsewhere"
    ):
        sweep.collect(LocalPlace(store), unbound, EAGER)
    with open_database(store.registry_url).writing() as db:
        db.execute(insert(tables.store).values(id="another", url="file:///other", bound_at="2026-01-01"))
    with pytest.raises(StoreMismatch, match="names artifacts of store another"):
        collect(store)
    assert store.has(key)


def test_a_sweep_that_others_think_dead_removes_nothing_more(store, put, key, monkeypatch):
    put(key, {"a": b"a"})

    class Slow(LocalPlace):
        def inventory(self, now: datetime, progress):
            found = super().inventory(now, progress)
            time.sleep(0.3)
            return found

    monkeypatch.setattr("artifacts.store.lease.TTL_S", 0.1)
    monkeypatch.setattr("artifacts.store.lease.RENEWALS", 0.01)  # as if the thread did not run
    with pytest.raises(LeaseLost):
        sweep.collect(Slow(store), names(store), EAGER)
    assert store.has(key)


class Remote:
    """A remote store in a directory, written as its layout says."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root, self.objects = root, Directory(prefix=root)

    def put(self, number: int, files: dict[str, bytes], *, parts: int = 1) -> str:
        records = {}
        for name, content in files.items():
            sha = hashlib.sha256(content).hexdigest()
            records[name] = FileRecord(size=len(content), sha256=sha)
            at = f"blobs/{sha[:2]}/{sha}"
            if parts == 1:
                obstore.put(self.objects, at, content)
            else:
                for index in range(parts):
                    obstore.put(self.objects, f"{at}.parts/{index:05d}.{'0' * 64}", content[index::parts])
                obstore.put(self.objects, f"{at}.json", b"{}")
        key = f"{number:064x}"
        manifest = Manifest(
            version=1, kind="engine", key=key, step={}, files=records, host={}, seconds=0.0,
            digest=digest.of_tree({name: record.sha256 for name, record in records.items()}),
            peak_memory_bytes=None, created_at=datetime.now(UTC))  # fmt: skip
        obstore.put(self.objects, f"manifests/{key[:2]}/{key}.json", manifest.to_text().encode())
        return key

    def bind(self, store) -> Names:
        obstore.put(self.objects, "store.json", seal({"layout": 1, "id": "here"}).encode())
        database = open_database(store.registry_url)
        with database.writing() as db:
            db.execute(insert(tables.store).values(id="here", url="s3://x/y", bound_at="2026-01-01"))
        return Names(database, inside=False)

    def listed(self) -> set[str]:
        return {meta["path"] for batch in obstore.list(self.objects) for meta in batch}


@pytest.fixture
def remote(tmp_path):
    return Remote(tmp_path / "remote")


def test_a_remote_store_frees_what_is_said_and_parts_go_after_their_index(store, remote):
    kept = remote.put(1, {"shared": b"s" * 100, "own": b"1" * 10})
    remote.put(2, {"shared": b"s" * 100, "long": b"2" * 40}, parts=4)
    publish(store, 1, kept, alias="prod")
    bound = remote.bind(store)
    abandoned = f"blobs/ff/{'f' * 64}.parts/00000.{'0' * 64}"
    for path in (abandoned, "blobs/README", f"blobs/ab/{'a' * 63}", "notes.txt", "probes/0"):
        obstore.put(remote.objects, path, b"x")
    before = on_disk(remote.root)
    dry = sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER, dry_run=True)
    assert on_disk(remote.root) == before
    told: list[tuple[int, int, str]] = []
    plan = sweep.collect(
        RemotePlace(remote.objects, "s3://x/y"),
        bound,
        EAGER,
        progress=lambda *at: told.append(at),
    )
    assert (plan.freed_bytes, len(plan.blobs)) == (dry.freed_bytes, len(dry.blobs))
    assert before - on_disk(remote.root) == plan.freed_bytes
    assert [at for at in told if at[2] == "manifests"] == [(1, 2, "manifests"), (2, 2, "manifests")]
    assert told[-1][:2] == (told[-1][1], told[-1][1])
    assert told[-1][2] == "removed"
    shared = hashlib.sha256(b"s" * 100).hexdigest()
    own = hashlib.sha256(b"1" * 10).hexdigest()
    assert remote.listed() == {
        f"manifests/00/{kept}.json", f"blobs/{own[:2]}/{own}", f"blobs/{shared[:2]}/{shared}",
        *(f"blobs/{shared[:2]}/{shared}.parts/{n:05d}.{'0' * 64}" for n in range(4)),
        f"blobs/{shared[:2]}/{shared}.json",
        "blobs/README", f"blobs/ab/{'a' * 63}", "notes.txt", "store.json"}  # fmt: skip


def test_an_upload_that_was_cut_short_can_be_continued_until_it_is_old(store, remote):
    part = f"blobs/ff/{'f' * 64}.parts/00000.{'0' * 64}"
    obstore.put(remote.objects, part, b"x")
    publish(store, 1, "0" * 64)
    bound, patient = remote.bind(store), Policy(min_age_days=1)
    assert sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, patient).blobs == {}
    os.utime(remote.root / part, (1, 1))
    assert list(sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, patient).blobs) == ["f" * 64]
    assert remote.listed() == {"store.json"}


def test_a_remote_manifest_that_cannot_be_read_stops_the_sweep_of_contents(store, remote):
    key = remote.put(1, {"a": b"a"})
    publish(store, 1, key, alias="prod")
    bound = remote.bind(store)
    path = f"manifests/00/{key}.json"
    text = bytes(obstore.get(remote.objects, path).bytes())
    obstore.put(remote.objects, path, text.replace(b'"engine"', b'"Engine"'))
    plan = sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER)
    assert (plan.removed, plan.blobs) == ((), {})
    (problem,) = plan.problems
    assert problem.startswith(f"{path}: its manifest: does not match its seal")
    assert len(remote.listed()) == 3


BUILDER = """
import random, sys, time
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import open_store
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


def ready(start, code: str, *args: object):
    child = start("print('ready', flush=True)\n" + code, *args)
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    return child


def go(*children) -> None:
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()


def finished(*children) -> list[str]:
    outputs = [child.communicate(timeout=120) for child in children]
    for child, (_, err) in zip(children, outputs, strict=True):
        assert child.returncode == 0, err
    return [out.strip() for out, _ in outputs]


def published(url: str, number: int) -> bool:
    """Whether the worker with that number has published once."""
    return f"by-{number}" in open_registry(url).aliases("demo")


def age(root: Path) -> None:
    """Make every lease as old as if nobody had renewed it for a year: their holders were killed."""
    for path in root.glob("leases/*"):
        os.utime(path, (time.time() - 4e7,) * 2)


def test_builders_and_pullers_lose_nothing_to_a_sweep_that_never_rests(store, start):
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


def test_killed_builders_and_sweeps_leave_only_what_the_next_sweep_takes(store, start, all_files):
    chance = random.Random(5)
    sweeper = f"""
import sys
from artifacts.store import lease
from artifacts.collection import sweep
from artifacts.registry.database import open_database
from artifacts.collection.gc import Policy
from artifacts.collection.places import LocalPlace
from artifacts.registry.retention import Names
from artifacts.store.local import open_store
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


PUSHER = """
import hashlib, json, random, sys, time
from datetime import UTC, datetime
import obstore
from obstore.store import LocalStore as Directory
from artifacts import digest
from artifacts.store import lease
from artifacts.manifest import FileRecord, Manifest
from artifacts.registry.registry import Publication, open_registry
objects, url, turns, number = Directory(prefix=sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
registry, chance = open_registry(url), random.Random(number)

def there(path):
    try:
        obstore.head(objects, path)
    except FileNotFoundError:
        return False
    return True

input()
for turn in range(turns):
    contents = [f"content {chance.randrange(12)}".encode() for _ in range(3)]
    key = digest.of_json([number, turn % 5, [one.decode() for one in contents]])
    records = {f"f{n}": FileRecord(size=len(one), sha256=hashlib.sha256(one).hexdigest()) for n, one in enumerate(contents)}
    paths = [f"blobs/{one.sha256[:2]}/{one.sha256}" for one in records.values()]
    manifest = f"manifests/{key[:2]}/{key}.json"
    with lease.hold(objects, [key], "a push", blobs=[one.sha256 for one in records.values()]) as held:
        if not there(manifest):
            for path, content in zip(paths, contents):
                if not there(path):
                    obstore.put(objects, path, content)
                time.sleep(chance.uniform(0, 0.005))
            held.require()
            obstore.put(objects, manifest, Manifest(
                version=1, kind="engine", key=key, step={}, files=records, host={}, seconds=0.0,
                digest=digest.of_tree({name: one.sha256 for name, one in records.items()}),
                peak_memory_bytes=None, created_at=datetime.now(UTC)).to_text().encode())
        time.sleep(chance.uniform(0, 0.005))
        assert all(map(there, [manifest, *paths])), "swept under a lease"
        registry.publish(Publication(
            name="demo", alias=f"by-{number}", engine_key=key, recipe={"at": [number, turn]}, verdict="PASS", facts={}))
print("pushed", flush=True)
"""


def referenced(remote: Remote, url: str) -> set[str]:
    """Every object that a version needs which gc says it kept."""
    kept = [one for one in open_registry(url).versions("demo") if one.collected_at is None]
    found = {"store.json"}
    for one in kept:
        path = f"manifests/{one.engine_key[:2]}/{one.engine_key}.json"
        manifest = json.loads(bytes(obstore.get(remote.objects, path).bytes()))
        shas = [record["sha256"] for record in manifest["files"].values()]
        found |= {path, *(f"blobs/{sha[:2]}/{sha}" for sha in shas)}
    return found


def test_pushers_that_share_files_lose_none_to_a_sweep_that_never_rests(store, remote, start):
    bound = remote.bind(store)
    workers = [ready(start, PUSHER, remote.root, store.registry_url, 25, number) for number in range(3)]
    go(*workers)
    gone = 0
    while any(worker.poll() is None for worker in workers):
        gone += len(sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER).blobs)
    assert finished(*workers) == ["pushed"] * 3
    assert gone > 5
    sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER)
    assert remote.listed() == referenced(remote, store.registry_url)


def test_killed_pushers_leave_only_what_the_next_sweep_takes(store, remote, start):
    bound, chance = remote.bind(store), random.Random(11)
    for turn in range(3):
        victims = [
            ready(start, PUSHER, remote.root, store.registry_url, 10_000, 10 * turn + n) for n in range(2)
        ]
        go(*victims)
        while not published(store.registry_url, 10 * turn) or chance.random() < 0.8:
            assert victims[0].poll() is None
            sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER)
        for victim in victims:
            victim.kill()
            victim.wait()
        age(remote.root)
    sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, EAGER)
    assert remote.listed() == referenced(remote, store.registry_url)
    assert len(remote.listed()) > 4


def test_two_sweeps_at_once_collect_each_version_once(store, put, together):
    for n in range(1, 21):
        put(f"{n:064x}", {"a": bytes([n])})
        publish(store, n, f"{n:064x}", alias="prod")
    code = f"""
import sys
from artifacts.collection import sweep
from artifacts.registry.database import open_database
from artifacts.collection.gc import Policy
from artifacts.collection.places import LocalPlace
from artifacts.registry.retention import Names
from artifacts.store.local import open_store
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
