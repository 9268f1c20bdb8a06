"""Pulls from a remote store through a cache: straight, from what it has, continued, and of the right build."""

import os
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from artifacts.client import Client, verify_pulled
from artifacts.errors import DestinationTaken
from artifacts.registry.registry import Publication
from artifacts.store.cached import CachedStore
from artifacts.store.remote import remote_layout
from tests.artifacts.caches import commit, hurt
from tests.artifacts.remotes import BIG, until
from tests.forked import Forked
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket


@pytest.fixture
def consumer(
    machine: Callable[..., CachedStore],
    key: str,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Client:
    """A machine whose cache is empty, and a published version."""
    commit(machine("here"), key, BIG)
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "caches"))
    client = Client(bucket.url, f"sqlite:///{tmp_path / 'registry.db'}")
    client.registry.publish(
        Publication(name="demo/fp8", engine_key=key, recipe={}, verdict="PASS", facts={"tp": 2})
    )
    return client


def test_a_version_is_pulled_straight_from_the_remote_store(consumer: Client, tmp_path: Path, key: str):
    told = []
    pulled = consumer.pull("demo/fp8", tmp_path / "new" / "engine", progress=lambda *at: told.append(at))
    assert {name: (pulled / name).read_bytes() for name in BIG} == BIG
    assert verify_pulled(pulled) == []
    assert list(pulled.parent.iterdir()) == [pulled]
    assert not consumer.store.path(key).exists()  # no second copy
    assert told[-1][0] == told[-1][1]
    assert os.access(pulled / "rank0.bin", os.W_OK)


def test_a_pull_takes_from_the_cache_what_is_there(
    consumer: Client, tmp_path: Path, key: str, bucket: Bucket, proxy: Proxy
):
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
    consumer: Client, tmp_path: Path, start: Callable[..., Forked], bucket: Bucket, proxy: Proxy
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


def test_a_taken_destination_is_left_alone(consumer: Client, tmp_path: Path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine").write_bytes(b"mine")
    with pytest.raises(DestinationTaken):
        consumer.pull("demo/fp8", tmp_path / "engine")
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["mine"]


def test_a_pull_mends_what_is_damaged_in_the_cache_on_the_way(
    consumer: Client, tmp_path: Path, key: str, bucket: Bucket
):
    client = Client(bucket.url, consumer.registry.url)
    hurt(client.store.directory(key) / "rank0.bin")
    pulled = client.pull("demo/fp8", tmp_path / "engine")
    assert verify_pulled(pulled) == []
    assert {name: (pulled / name).read_bytes() for name in BIG} == BIG


def test_a_copy_of_another_build_gives_way_to_the_one_that_was_published(
    machine: Callable[..., CachedStore], key: str, tmp_path: Path
):
    """gc took the first build, another machine built and published it anew, and its bytes came out otherwise."""
    here, there = machine("here"), machine("there")
    commit(here, key, {"engine.json": b"first"})
    obstore.delete(here.remote.objects, remote_layout.manifest_path(key))
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
