"""Collections of remote stores, alone and while others push and are killed."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore as Directory
from sqlalchemy import insert

from artifacts import digest
from artifacts.collection import sweep
from artifacts.collection.marking import Policy
from artifacts.collection.places import RemotePlace
from artifacts.manifest import FileRecord, Manifest, seal
from artifacts.registry import tables
from artifacts.registry.database import open_database
from artifacts.registry.registry import open_registry
from artifacts.registry.retention import Names
from artifacts.store.local import LocalStore
from tests.artifacts.sweeping import EAGER, age, finished, go, on_disk, publish, published, ready
from tests.forked import Forked


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
            db.execute(
                insert(tables.store).values(id="here", url="s3://x/y", bound_at="2026-01-01T00:00:00+00:00")
            )
        return Names(database, inside=False)

    def listed(self) -> set[str]:
        return {meta["path"] for batch in obstore.list(self.objects) for meta in batch}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


def test_a_remote_store_frees_what_is_said_and_parts_go_after_their_index(store: LocalStore, remote: Remote):
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


def test_an_upload_that_was_cut_short_can_be_continued_until_it_is_old(store: LocalStore, remote: Remote):
    part = f"blobs/ff/{'f' * 64}.parts/00000.{'0' * 64}"
    obstore.put(remote.objects, part, b"x")
    publish(store, 1, "0" * 64)
    bound, patient = remote.bind(store), Policy(min_age_days=1)
    assert sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, patient).blobs == {}
    os.utime(remote.root / part, (1, 1))
    assert list(sweep.collect(RemotePlace(remote.objects, "s3://x/y"), bound, patient).blobs) == ["f" * 64]
    assert remote.listed() == {"store.json"}


def test_a_remote_manifest_that_cannot_be_read_stops_the_sweep_of_contents(store: LocalStore, remote: Remote):
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


def test_pushers_that_share_files_lose_none_to_a_sweep_that_never_rests(
    store: LocalStore, remote: Remote, start: Callable[..., Forked]
):
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


def test_killed_pushers_leave_only_what_the_next_sweep_takes(
    store: LocalStore, remote: Remote, start: Callable[..., Forked]
):
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
