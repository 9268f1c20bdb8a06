"""Pushes and fetches of several processes at once, and of processes that are killed amid them."""

from collections.abc import Callable

from artifacts.store.local import LocalStore
from tests.artifacts.remotes import BIG, contents, opened, until
from tests.forked import Forked
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket

PUSHER = """
import sys
from pathlib import Path
from artifacts.store.local import LocalStore
from tests.artifacts.remotes import opened
store, key = LocalStore(Path(sys.argv[1])), sys.argv[3]
print("ready", flush=True)
opened(sys.argv[2]).push(store.path(key), store.manifest(key))
"""

FETCHER = """
import sys
from pathlib import Path
from tests.artifacts.remotes import opened
remote = opened(sys.argv[1])
files = remote.manifest(sys.argv[3]).files
print("ready", flush=True)
remote.fetch_files(files, Path(sys.argv[2]))
"""


def test_a_push_killed_amid_is_no_artifact_and_the_next_one_sends_the_rest(
    bucket: Bucket,
    proxy: Proxy,
    store: LocalStore,
    put: Callable[..., None],
    key: str,
    start: Callable[..., Forked],
):
    put(key, BIG)
    remote = opened(bucket.url)
    assert remote.id
    proxy.latency_s = 0.01
    sent = 0
    for round_ in (1, 2):
        child = start(PUSHER, store.root, bucket.url, key)
        assert child.stdout.readline() == "ready\n"
        until(sent + 40, lambda: proxy.sent("PUT", ".parts/"))
        child.kill()
        child.wait()
        assert not remote.has(key), round_
        sent = len(proxy.sent("PUT", ".parts/"))
    kept = len(bucket.objects("blobs"))
    assert 60 < kept < 150
    for path in bucket.objects("leases"):
        (bucket.root / path).unlink()
    before = len(proxy.sent("PUT", ".parts/"))
    assert remote.push(store.path(key), store.manifest(key))
    assert len(proxy.sent("PUT", ".parts/")) - before <= 151 - kept + 8  # those that were on the way
    assert remote.verify(key) == []


def test_a_fetch_killed_amid_is_continued(
    bucket: Bucket,
    proxy: Proxy,
    store: LocalStore,
    put: Callable[..., None],
    key: str,
    start: Callable[..., Forked],
):
    put(key, BIG)
    out = store.root.parent / "out"
    remote = opened(bucket.url)
    remote.push(store.path(key), store.manifest(key))
    proxy.latency_s = 0.01
    child = start(FETCHER, bucket.url, out, key)
    assert child.stdout.readline() == "ready\n"
    until(60, lambda: proxy.sent("GET", ".parts/"))
    child.kill()
    child.wait()
    before = len(proxy.sent("GET", ".parts/"))
    remote.fetch_files(store.manifest(key).files, out)
    assert contents(out) == BIG
    assert len(proxy.sent("GET", ".parts/")) - before <= 150 - (before - 2 * 8)


def test_pushers_of_one_artifact_at_once_make_one(
    bucket: Bucket, store: LocalStore, put: Callable[..., None], key: str, together: Callable[..., list[str]]
):
    put(key, BIG)
    code = PUSHER.replace('print("ready", flush=True)', "input()")
    together(code.replace("sys.argv[3]", f"{key!r}"), 3, store.root, bucket.url)
    remote = opened(bucket.url)
    assert remote.verify(key) == []
    assert bucket.objects("leases") == []
