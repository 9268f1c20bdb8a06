"""A remote store behind a cache: the methods of a local store, and bytes fetched once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import NotFound, StoreUnknown, StoreUnusable
from artifacts.store.cached import CachedStore
from artifacts.store.draft import Draft
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_cached, open_store
from tests.artifacts.caches import commit
from tests.artifacts.remotes import BIG, FILES, contents
from tests.servers import faults
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket


@pytest.fixture
def cached(machine: Callable[..., CachedStore]) -> CachedStore:
    return machine("here")


@pytest.fixture(params=["local", "remote"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore:
    """A store of each kind, which callers cannot tell apart."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    store: CachedStore = request.getfixturevalue("cached")
    return store


def test_every_store_keeps_what_was_committed(any_store: LocalStore, key: str, other_key: str):
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


def test_every_store_commits_a_block_wholly_or_not_at_all(any_store: LocalStore, key: str):
    def fail(draft: Draft) -> None:
        (draft.path / "half").write_bytes(b"?")
        raise RuntimeError

    with pytest.raises(RuntimeError), any_store.write(key, kind="k", step={}, host={}) as draft:
        fail(draft)
    assert not any_store.has(key)


def test_every_store_lets_the_first_of_two_writers_win(any_store: LocalStore, key: str):
    with any_store.write(key, kind="k", step={}, host={}) as slow:
        (slow.path / "a").write_bytes(b"slow")
        commit(any_store, key, {"a": b"fast"})
    assert any_store.file(key, "a").read_bytes() == b"fast"
    assert any_store.verify(key) == []


def test_every_store_can_be_leased_and_proves_that_it_can_be_written(any_store: LocalStore, key: str):
    with any_store.lease([key], "a test") as held:
        held.require()
        any_store.prepare()
    any_store.push(key)
    assert any_store.sweep() == []


def test_a_consumer_that_may_only_read_gets_what_it_asks_for(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket, proxy: Proxy
):
    commit(machine("here"), key)
    proxy.fail("PUT", "/", faults.status(403), times=1000)
    there = machine("there")
    with there.reading([key], "a test"):
        assert (there.directory(key) / "engine.json").read_bytes() == b"{}"


def test_what_one_machine_made_another_has(
    machine: Callable[..., CachedStore], key: str, all_files: Callable[[Path], list[str]]
):
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


def test_one_file_is_fetched_without_the_others(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket, proxy: Proxy
):
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


def test_files_that_another_artifact_in_the_cache_has_are_not_fetched(
    machine: Callable[..., CachedStore], key: str, other_key: str, proxy: Proxy
):
    here, there = machine("here"), machine("there")
    commit(here, key)
    commit(here, other_key, {**FILES, "engine.json": b"[]"})
    there.directory(key)
    before = len(proxy.sent("GET", "/blobs/"))
    there.directory(other_key)
    assert len(proxy.sent("GET", "/blobs/")) - before == 1
    assert there.local.verify(other_key) == []


def test_a_push_that_failed_is_made_good_by_the_next_one(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket, proxy: Proxy
):
    here = machine("here")
    assert here.id
    fault = proxy.fail("PUT", "/blobs/", faults.status(403), times=1000)
    with pytest.raises(StoreUnusable, match="access denied; check"):
        commit(here, key)
    assert here.local.has(key)
    assert not here.remote.has(key)
    fault.times = 0
    told = []
    here.push(key, lambda *at: told.append(at))
    assert here.remote.verify(key) == []
    assert told[-1][0] == told[-1][1]


FETCHER = """
import sys
from pathlib import Path
from artifacts.store.cached import CachedStore
from tests.artifacts.remotes import opened
store = CachedStore(opened(sys.argv[1]), Path(sys.argv[2]))
input()
print(store.file(sys.argv[3], "rank1.bin").stat().st_size, store.directory(sys.argv[3]).name == sys.argv[3])
"""


def test_processes_that_want_the_same_at_once_fetch_it_once(
    machine: Callable[..., CachedStore],
    key: str,
    together: Callable[..., list[str]],
    bucket: Bucket,
    proxy: Proxy,
    tmp_path: Path,
):
    commit(machine("here"), key, BIG)
    before = len(proxy.sent("GET", ".parts/"))
    code = FETCHER.replace("sys.argv[3]", f"{key!r}")
    assert together(code, 3, bucket.url, tmp_path / "there") == ["9 True"] * 3
    assert len(proxy.sent("GET", ".parts/")) - before < 170  # a slow machine repeats one now and then
    assert machine("there").local.verify(key) == []


def test_the_environment_says_where_a_cache_is_and_how_large(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("ENGINERY_CACHE_MAX", "3MB")
    one, other = open_store(bucket.url), open_store(f"{bucket.url}2")
    assert isinstance(one, CachedStore)
    assert (one.cache.max_bytes, one.url) == (3_000_000, bucket.url)
    assert one.root.parent == other.root.parent == tmp_path / "caches"
    assert one.root != other.root
    assert open_store(f"{bucket.url}/").root == one.root
    assert open_cached(bucket.url, {}).root.parent == Path("~/.cache/enginery").expanduser()


def test_a_remote_store_needs_a_registry_that_is_named(cached: CachedStore, bucket: Bucket):
    with pytest.raises(
        StoreUnknown, match=f"no registry is named for the store {bucket.url}; give --registry"
    ):
        cached.registry_url  # noqa: B018 the look is what fails
