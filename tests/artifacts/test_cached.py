"""A remote store behind a cache: the methods of a local store, bytes fetched once, a bound on what is kept."""

import os
import random
import time
from pathlib import Path

import obstore
import pytest

from artifacts import digest
from artifacts.client import Client, verify_pulled
from artifacts.collection.gc import Policy
from artifacts.collection.places import LocalPlace
from artifacts.collection.sweep import tidy
from artifacts.errors import ArtifactCorrupt, DestinationTaken, NotFound, StoreUnknown, StoreUnusable
from artifacts.registry.registry import Publication
from artifacts.store.cached import CachedStore
from artifacts.store.draft import Draft
from artifacts.store.local import LocalStore, open_store
from artifacts.store.opening import open_cached, parse_size
from artifacts.store.remote import layout
from artifacts.store.repair import repair
from artifacts.store.repair_remote import give_up, repair_all
from artifacts.store.survey import survey
from artifacts.store.survey_remote import survey_remote
from tests.artifacts.remotes import BIG, FILES, contents, damage, opened, until
from tests.servers import faults


@pytest.fixture
def machine(bucket, tmp_path):
    """Makes machines that share one remote store, each with a cache of its own."""

    def make(name: str, **options) -> CachedStore:
        return CachedStore(opened(bucket.url), tmp_path / name, **options)

    return make


@pytest.fixture
def cached(machine) -> CachedStore:
    return machine("here")


@pytest.fixture(params=["local", "remote"])
def any_store(request, tmp_path) -> LocalStore:
    """A store of each kind, which callers cannot tell apart."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    store: CachedStore = request.getfixturevalue("cached")
    return store


def commit(store: LocalStore, key: str, files: dict[str, bytes] = FILES) -> None:
    with store.write(key, kind="engine", step={"kind": "engine"}, host={}) as draft:
        for name, data in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(data)


def test_every_store_keeps_what_was_committed(any_store, key, other_key):
    assert not any_store.has(key)
    assert any_store.keys() == []
    with pytest.raises(NotFound, match=key):
        any_store.manifest(key)
    with pytest.raises(NotFound, match=key):
        any_store.directory(key)
    commit(any_store, key)
    assert any_store.has(key)
    assert any_store.intact(key)
    assert any_store.keys() == [key]
    assert any_store.verify(key) == []
    found = {name: data for name, data in contents(any_store.directory(key)).items() if name in FILES}
    assert found == FILES
    assert any_store.file(key, "rank0.bin").read_bytes() == FILES["rank0.bin"]
    with pytest.raises(NotFound, match="has no file 'nothing'; it has empty"):
        any_store.file(key, "nothing")
    assert not any_store.has(other_key)


def test_every_store_commits_a_block_wholly_or_not_at_all(any_store, key):
    def fail(draft: Draft) -> None:
        (draft.path / "half").write_bytes(b"?")
        raise RuntimeError

    with pytest.raises(RuntimeError), any_store.write(key, kind="k", step={}, host={}) as draft:
        fail(draft)
    assert not any_store.has(key)


def test_every_store_lets_the_first_of_two_writers_win(any_store, key):
    with any_store.write(key, kind="k", step={}, host={}) as slow:
        (slow.path / "a").write_bytes(b"slow")
        commit(any_store, key, {"a": b"fast"})
    assert any_store.file(key, "a").read_bytes() == b"fast"
    assert any_store.verify(key) == []


def test_every_store_can_be_leased_and_proves_that_it_can_be_written(any_store, key):
    with any_store.lease([key], "a test") as held:
        held.require()
        any_store.prepare()
    any_store.push(key)
    assert any_store.sweep() == []


def test_a_consumer_that_may_only_read_gets_what_it_asks_for(machine, key, bucket, proxy):
    commit(machine("here"), key)
    proxy.fail("PUT", "/", faults.status(403), times=1000)
    there = machine("there")
    with there.reading([key], "a test"):
        assert (there.directory(key) / "engine.json").read_bytes() == b"{}"


def test_what_one_machine_made_another_has(machine, key, all_files):
    here, there = machine("here"), machine("there")
    commit(here, key)
    assert there.has(key)
    assert there.intact(key)
    assert there.manifest(key) == here.manifest(key)
    assert not there.path(key).exists()
    told = []
    directory = there.directory(key, lambda *at: told.append(at))
    assert directory == there.path(key)
    assert all_files(directory) == sorted([*FILES, "manifest.json"])
    assert told[-1] == (here.manifest(key).size_bytes,) * 2
    assert there.local.verify(key) == []
    assert not os.access(directory / "rank0.bin", os.W_OK) or os.geteuid() == 0
    assert list((there.root / "partial").iterdir()) == []


def test_one_file_is_fetched_without_the_others(machine, key, bucket, proxy):
    commit(machine("here"), key)
    there = machine("there")
    before = len(proxy.sent("GET", "/blobs/"))
    assert there.file(key, "engine.json").read_bytes() == b"{}"
    assert there.file(key, "engine.json").read_bytes() == b"{}"
    assert len(proxy.sent("GET", "/blobs/")) - before == 1
    there.directory(key)
    again = [path for path in proxy.sent("GET", "/blobs/") if "44136fa355b3678a" in path]  # of {}
    assert len(again) == 1
    assert there.verify(key) == []


def test_files_that_another_artifact_in_the_cache_has_are_not_fetched(machine, key, other_key, proxy):
    here, there = machine("here"), machine("there")
    commit(here, key)
    commit(here, other_key, {**FILES, "engine.json": b"[]"})
    there.directory(key)
    before = len(proxy.sent("GET", "/blobs/"))
    there.directory(other_key)
    assert len(proxy.sent("GET", "/blobs/")) - before == 1
    assert there.local.verify(other_key) == []


def test_a_push_that_failed_is_made_good_by_the_next_one(machine, key, bucket, proxy):
    here = machine("here")
    assert here.id
    fault = proxy.fail("PUT", "/blobs/", faults.status(403), times=1000)
    with pytest.raises(StoreUnusable, match="refuses these credentials"):
        commit(here, key)
    assert here.local.has(key)
    assert not here.remote.has(key)
    fault.times = 0
    told = []
    here.push(key, lambda *at: told.append(at))
    assert here.remote.verify(key) == []
    assert told[-1][0] == told[-1][1]


def test_a_fetch_of_damaged_bytes_gives_nothing_and_names_them(machine, key, bucket):
    here, there = machine("here"), machine("there")
    commit(here, key)
    sha256 = here.manifest(key).files["tuning/cache"].sha256
    damage(bucket.root / layout.blob_path(sha256))
    with pytest.raises(ArtifactCorrupt, match=sha256):
        there.directory(key)
    assert not there.local.has(key)
    assert there.verify(key)[0].startswith("tuning/cache: ")
    assert here.verify(key) == []


def test_a_damaged_copy_in_the_cache_is_fetched_anew_once_it_is_discarded(machine, key):
    there = machine("there")
    commit(machine("here"), key)
    path = there.directory(key) / "rank0.bin"
    path.chmod(0o644)
    path.write_bytes(b"x")
    assert there.verify(key)[0].startswith("rank0.bin: 1 bytes")
    assert there.intact(key)  # it can be had
    assert (there.directory(key) / "rank0.bin").read_bytes() == FILES["rank0.bin"]


def test_a_damaged_byte_in_the_cache_is_repaired_from_the_remote_store(machine, key, bucket):
    there = machine("there")
    commit(machine("here"), key)
    directory = there.directory(key)
    for name in ("rank0.bin", "tuning/cache"):
        path = directory / name
        path.chmod(0o644)
        damage(path)
    damages = survey(there.local).damages
    assert len(damages) == 2
    broken = layout.blob_path(there.manifest(key).files["tuning/cache"].sha256)
    damage(bucket.root / broken)
    assert sorted(done.repaired for done in repair(there.local, damages, there.source())) == [False, True]
    assert [damage.paths[-1].rpartition("/")[2] for damage in survey(there.local).damages] == ["cache"]


FETCHER = """
import sys
from pathlib import Path
from artifacts.store.cached import CachedStore
from tests.artifacts.remotes import opened
store = CachedStore(opened(sys.argv[1]), Path(sys.argv[2]))
input()
print(store.file(sys.argv[3], "rank1.bin").stat().st_size, store.directory(sys.argv[3]).name == sys.argv[3])
"""


def test_processes_that_want_the_same_at_once_fetch_it_once(machine, key, together, bucket, proxy, tmp_path):
    commit(machine("here"), key, BIG)
    before = len(proxy.sent("GET", ".parts/"))
    code = FETCHER.replace("sys.argv[3]", f"{key!r}")
    assert together(code, 3, bucket.url, tmp_path / "there") == ["9 True"] * 3
    assert len(proxy.sent("GET", ".parts/")) - before < 170  # a slow machine repeats one now and then
    assert machine("there").local.verify(key) == []


def keys(count: int) -> list[str]:
    return [digest.of_json(["many", number]) for number in range(count)]


def fill(store: CachedStore, count: int) -> list[str]:
    """Commits artifacts of 100 kB each, oldest use first."""
    made = keys(count)
    for age, key in enumerate(reversed(made)):
        commit(store, key, {"a": random.Random(key).randbytes(100_000)})
        then = time.time() - 100 * (age + 1)
        os.utime(store.path(key), (then, then))
    return made


def test_the_cache_evicts_what_was_not_used_for_longest(machine):
    here = machine("here", idle_s=50)
    made = fill(here, 5)
    here.directory(made[0])
    here.cache.max_bytes = here.cache.held_bytes() - 150_000
    assert here.cache.shrink() == [made[1], made[2]]
    assert here.cache.held_bytes() <= here.cache.max_bytes
    assert here.local.keys() == sorted([made[0], made[3], made[4]])
    assert here.keys() == sorted(made)
    assert here.cache.shrink() == []
    assert here.verify(made[1]) == []
    assert (here.directory(made[1]) / "a").stat().st_size == 100_000


def test_what_is_not_pushed_is_leased_or_was_used_just_now_is_not_evicted(machine, caplog):
    here = machine("here", idle_s=50, max_bytes=None)
    made = fill(here, 4)
    obstore.delete(here.remote.objects, layout.manifest_path(made[0]))
    here.directory(made[1])
    here.cache.max_bytes = 0
    with machine("here").lease([made[2]], "a test"):
        then = time.time() - 100
        os.utime(here.path(made[2]), (then, then))
        assert here.cache.shrink() == [made[3]]
    assert here.local.keys() == sorted(made[:3])
    assert "over its bound of 0; the rest is in use, or not in s3://" in caplog.text


def test_a_commit_makes_room_for_itself(machine):
    here = machine("here", idle_s=50, max_bytes=250_000)
    made = fill(here, 4)
    assert here.cache.held_bytes() <= 250_000
    assert set(here.local.keys()) < set(made)
    assert here.keys() == sorted(made)


@pytest.mark.parametrize(
    ("text", "size"),
    [("200GB", 200 * 10**9), ("1.5 TiB", 3 << 39), ("5000", 5000), ("1mb", 10**6), ("7B", 7)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1 PB", "1e9", "12 34"])
def test_other_sizes_are_refused(text):
    with pytest.raises(StoreUnknown, match=r"is no size; write e\.g\. 200GB"):
        parse_size(text)


def test_the_environment_says_where_a_cache_is_and_how_large(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("ENGINERY_CACHE_MAX", "3MB")
    one, other = open_store(bucket.url), open_store(f"{bucket.url}2")
    assert isinstance(one, CachedStore)
    assert (one.cache.max_bytes, one.url) == (3_000_000, bucket.url)
    assert one.root.parent == other.root.parent == tmp_path / "caches"
    assert one.root != other.root
    assert open_store(f"{bucket.url}/").root == one.root
    assert open_cached(bucket.url, {}).root.parent == Path("~/.cache/enginery").expanduser()


def test_a_remote_store_needs_a_registry_that_is_named(cached, bucket):
    with pytest.raises(
        StoreUnknown, match=f"no registry is named for the store {bucket.url}; give --registry"
    ):
        cached.registry_url  # noqa: B018 the look is what fails


@pytest.fixture
def consumer(machine, key, bucket, tmp_path, monkeypatch) -> Client:
    """A machine whose cache is empty, and a published version."""
    commit(machine("here"), key, BIG)
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "caches"))
    client = Client(bucket.url, f"sqlite:///{tmp_path / 'registry.db'}")
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={}, verdict="PASS", facts={"tp": 2})
    )
    return client


def test_a_version_is_pulled_straight_from_the_remote_store(consumer, tmp_path, key):
    told = []
    pulled = consumer.pull("demo/fp8", tmp_path / "new" / "engine", progress=lambda *at: told.append(at))
    assert {name: (pulled / name).read_bytes() for name in BIG} == BIG
    assert verify_pulled(pulled) == []
    assert list(pulled.parent.iterdir()) == [pulled]
    assert not consumer.store.path(key).exists()  # no second copy
    assert told[-1][0] == told[-1][1]
    assert os.access(pulled / "rank0.bin", os.W_OK)


def test_a_pull_takes_from_the_cache_what_is_there(consumer, tmp_path, key, bucket, proxy):
    client = Client(bucket.url, consumer.registry.url)
    client.store.directory(key)
    before = len(proxy.sent("GET", "/blobs/"))
    pulled = client.pull("demo/fp8", tmp_path / "engine")
    assert len(proxy.sent("GET", "/blobs/")) == before
    assert verify_pulled(pulled) == []
    (pulled / "rank1.bin").write_bytes(b"mine")
    assert client.store.verify(key) == []


PULLER = """
import sys
from artifacts.client import Client
client = Client(sys.argv[1], sys.argv[2])
print("ready", flush=True)
client.pull("demo/fp8", sys.argv[3])
"""


def test_a_killed_pull_is_continued_and_another_version_is_not_mixed_with_it(
    consumer, tmp_path, start, bucket, proxy
):
    proxy.latency_s = 0.01
    registry, target = f"sqlite:///{tmp_path / 'registry.db'}", tmp_path / "out" / "engine"
    before = len(proxy.sent("GET", ".parts/"))
    child = start(PULLER, bucket.url, registry, target)
    assert child.stdout.readline() == "ready\n"
    until(before + 60, lambda: proxy.sent("GET", ".parts/"))
    child.kill()
    child.wait()
    assert not target.exists()
    (target.parent / ".engine.fetch" / "of-another-version").write_bytes(b"?")
    asked = len(proxy.sent("GET", ".parts/")) - before
    client = Client(bucket.url, registry)
    assert verify_pulled(client.pull("demo/fp8", target)) == []
    assert list(target.parent.iterdir()) == [target]
    assert len(proxy.sent("GET", ".parts/")) - before <= 150 + 16, asked


def test_a_taken_destination_is_left_alone(consumer, tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine").write_bytes(b"mine")
    with pytest.raises(DestinationTaken):
        consumer.pull("demo/fp8", tmp_path / "engine")
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["mine"]


def hurt(path: Path) -> None:
    path.chmod(0o644)
    damage(path)


def test_whoever_reads_what_is_damaged_in_the_cache_gets_it_fetched_again(machine, key, proxy, caplog):
    there = machine("there")
    commit(machine("here"), key)
    directory = there.directory(key)
    hurt(directory / "rank0.bin")
    before = len(proxy.sent("GET", "/blobs/"))
    assert (there.directory(key) / "rank0.bin").read_bytes() == FILES["rank0.bin"]
    assert len(proxy.sent("GET", "/blobs/")) - before == 7  # its index and parts; the other files are right
    assert "is damaged; what is wrong is fetched again from s3://" in caplog.text
    hurt(directory / "engine.json")
    assert there.file(key, "engine.json").read_bytes() == b"{}"
    hurt(directory / "manifest.json")
    assert there.manifest(key).key == key
    assert there.require(key, "demo:1") == directory
    assert there.local.verify(key) == []
    assert list((there.root / "quarantine").iterdir()) == []
    assert survey(there.local).damages == ()


def test_a_file_that_was_fetched_alone_and_then_damaged_is_fetched_again(machine, key):
    there = machine("there")
    commit(machine("here"), key)
    hurt(there.file(key, "rank0.bin"))
    assert there.file(key, "rank0.bin").read_bytes() == FILES["rank0.bin"]
    hurt(there.file(key, "tuning/cache"))
    assert (there.directory(key) / "tuning" / "cache").read_bytes() == FILES["tuning/cache"]
    assert not (there.root / "files" / key).exists()


def test_a_damaged_copy_that_was_never_pushed_is_said_to_be_lost(machine, key):
    here = machine("here")
    commit(here, key)
    obstore.delete(here.remote.objects, layout.manifest_path(key))
    hurt(here.path(key) / "rank0.bin")
    assert not here.intact(key)
    with pytest.raises(
        ArtifactCorrupt, match=r"rank0\.bin: sha256 .* does not have it, so run its recipe again"
    ):
        here.directory(key)
    assert here.local.has(key)


def test_a_pull_mends_what_is_damaged_in_the_cache_on_the_way(consumer, tmp_path, key, bucket):
    client = Client(bucket.url, consumer.registry.url)
    hurt(client.store.directory(key) / "rank0.bin")
    pulled = client.pull("demo/fp8", tmp_path / "engine")
    assert verify_pulled(pulled) == []
    assert {name: (pulled / name).read_bytes() for name in BIG} == BIG


def test_a_copy_of_another_build_gives_way_to_the_one_that_was_published(machine, key, tmp_path):
    """gc took the first build, another machine built and published it anew, and its bytes came out otherwise."""
    here, there = machine("here"), machine("there")
    commit(here, key, {"engine.json": b"first"})
    obstore.delete(here.remote.objects, layout.manifest_path(key))
    commit(there, key, {"engine.json": b"second"})
    client = Client(tmp_path / "unused", f"sqlite:///{tmp_path / 'registry.db'}")
    client.store = here
    client.registry.publish(
        Publication(name="demo", engine_key=key, manifest_digest=there.manifest(key).digest, recipe={},
                    verdict="PASS", facts={})
    )  # fmt: skip
    assert here.manifest(key) != there.manifest(key)
    pulled = client.pull("demo", tmp_path / "engine")
    assert (pulled / "engine.json").read_bytes() == b"second"


def test_files_fetched_alone_are_evicted_too(machine):
    here, there = machine("here"), machine("there", idle_s=50)
    for number, one in enumerate(fill(here, 3)):
        there.file(one, "a")
        then = time.time() - 1000 + number
        os.utime(there.root / "files" / one, (then, then))
    assert there.cache.held_bytes() > 300_000
    there.cache.max_bytes = 150_000
    assert len(there.cache.shrink()) == 2
    assert there.cache.held_bytes() <= 150_000
    assert there.file(keys(3)[0], "a").stat().st_size == 100_000


def test_what_is_damaged_in_the_remote_store_is_named_and_repaired_from_the_cache(machine, key, bucket):
    here = machine("here")
    commit(here, key)
    files = here.manifest(key).files
    damage(bucket.root / layout.blob_path(files["tuning/cache"].sha256))
    (bucket.root / bucket.objects(f"{layout.blob_path(files['rank0.bin'].sha256)}.parts")[2]).unlink()
    found = survey_remote(here.remote)
    assert (found.artifacts, len(found.damages)) == (1, 2)
    assert {damage.keys for damage in found.damages} == {(key,)}
    assert all(str(damage).startswith(f"{bucket.url}/blobs/") for damage in found.damages)
    assert [done.repaired for done in repair_all(here, found.damages)] == [True, True]
    assert here.remote.verify(key) == []
    damage(bucket.root / layout.manifest_path(key))
    (damaged,) = survey_remote(here.remote).damages
    assert [done.how for done in repair_all(here, [damaged])] == [f"{bucket.url} has it from the cache"]
    assert survey_remote(here.remote, [key]).damages == ()


def test_what_nobody_has_right_any_more_can_be_given_up_and_built_again(machine, key, bucket):
    here = machine("here")
    commit(here, key)
    path = layout.blob_path(here.manifest(key).files["tuning/cache"].sha256)
    damage(bucket.root / path)
    hurt(here.path(key) / "tuning" / "cache")
    damages = [*survey(here.local).damages, *survey_remote(here.remote).damages]
    left = [done for done in repair_all(here, damages) if not done.repaired]
    assert len(left) == 2
    assert any("give up what has it with --discard" in done.how for done in left)
    for done in left:
        assert give_up(here, done.damage) == [key]
    assert not here.has(key)
    assert not (bucket.root / path).exists()
    commit(here, key)
    assert here.verify(key) == here.remote.verify(key) == []


def test_litter_of_a_cache_goes_and_what_a_lease_names_stays(machine, key, other_key):
    here, there = machine("here"), machine("there")
    for one in (key, other_key):
        commit(here, one)
        there.file(one, "engine.json")
    for name in (f"partial/{key}.fetch", f"partial/{other_key}.file", ".import.enginery.x.1"):
        (there.root / name).mkdir(parents=True)
    eager = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)
    with there.reading([key], "a build"):
        plan = tidy(LocalPlace(there), eager)
    gone = {f"files/{other_key}", f"partial/{other_key}.file", ".import.enginery.x.1"}
    assert {one.place for one in plan.litter} == gone
    assert (there.root / "files" / key / "engine.json").exists()
    assert there.file(other_key, "engine.json").read_bytes() == b"{}"
