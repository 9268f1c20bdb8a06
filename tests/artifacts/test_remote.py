"""Stores in object storage, over a real S3 server that answers wrongly now and then."""

import hashlib
import json
import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import digest
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnknown, StoreUnusable
from artifacts.manifest import FileRecord
from artifacts.store.local import LocalStore, open_store
from artifacts.store.remote import layout, place
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.place import Patience
from artifacts.store.remote.store import RemoteStore
from tests.servers import faults
from tests.servers.s3 import serving

PART = 4096
FAST = Patience(stall_s=0.4, request_s=1.5, outage_s=8, retries=6, backoff_s=0.01)
FILES = {
    "engine.json": b"{}",
    "rank0.bin": random.Random(1).randbytes(5 * PART + 7),
    "tuning/cache": b"c" * PART,
    "empty": b"",
}


def opened(url: str) -> RemoteStore:
    return RemoteStore(place.parse(url), FAST, part_bytes=PART)


@pytest.fixture
def remote(bucket) -> RemoteStore:
    """A store that nobody wrote to yet."""
    return opened(bucket.url)


@pytest.fixture
def made(store, put, key):
    """A local artifact: its manifest."""
    put(key, FILES)
    return store.manifest(key)


@pytest.fixture
def pushed(remote, store, made):
    """The same in the remote store."""
    assert remote.push(store.path(made.key), made)
    return made


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@given(size=st.integers(0, 200), part=st.integers(1, 50))
def test_parts_tile_the_file(size, part):
    spans = layout.spans(size, part)
    assert [at for offset, length in spans for at in range(offset, offset + length)] == list(range(size))
    assert all(length == part for _, length in spans[:-1])
    assert all(0 < length <= part for _, length in spans)


@given(count=st.integers(0, 30), lanes=st.integers(1, 5))
def test_calls_run_a_few_at_a_time_and_end_in_order(count, lanes):
    running, most, lock = 0, 0, threading.Lock()

    def call(number):
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        with lock:
            running -= 1
        return number

    asked = (lambda number=number: call(number) for number in range(count))
    assert list(in_order(asked, lanes)) == list(range(count))
    assert most <= lanes


def test_the_first_failure_of_several_calls_ends_them():
    begun = []

    def calls():
        for number in range(1000):
            begun.append(number)
            yield (lambda: 1 / 0) if number == 3 else (lambda: None)

    with pytest.raises(ZeroDivisionError):
        list(in_order(calls(), 4))
    assert len(begun) < 20


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hidden@bucket/x",
        "s3://hidden@bucket/x",
        "gs://bucket/x?token=hidden",
        "az://box/x?sv=1&sig=hidden",
        "s3://bucket/x#hidden",
        "https://hidden@host/x",
        "ftp://user:hidden@host/x?hidden",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_shown(url):
    with pytest.raises(StoreUnknown) as caught:
        open_store(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "gs://", "s3://bucket/../x", "az://bucket/./x"])
def test_a_url_without_a_bucket_is_refused(url):
    with pytest.raises(StoreUnknown, match="names no bucket"):
        open_store(url)


def test_what_is_pushed_is_there_in_parts_and_its_manifest_came_last(remote, store, made, bucket, proxy):
    remote = opened(bucket.url)
    assert not remote.has(made.key)
    assert remote.keys() == []
    told = []
    assert remote.push(store.path(made.key), made, lambda *at: told.append(at))
    assert remote.has(made.key)
    assert remote.keys() == [made.key]
    assert remote.manifest(made.key) == made
    assert remote.verify(made.key) == []
    assert told[-1] == (made.size_bytes, made.size_bytes)
    long = made.files["rank0.bin"].sha256
    parts = bucket.objects(f"blobs/{long[:2]}/{long}.parts")
    assert [(bucket.root / part).stat().st_size for part in parts] == [PART] * 5 + [7]
    written = [path for path in proxy.sent("PUT") if "/leases/" not in path]
    assert written[-1].endswith(layout.manifest_path(made.key))
    assert written[-2].endswith(layout.index_path(long))
    assert bucket.objects("leases") == []


def test_pushing_again_moves_no_file(remote, store, pushed, proxy, bucket):
    assert opened(bucket.url).push(store.path(pushed.key), pushed) is False
    assert proxy.sent("PUT", "/blobs/") == []


def test_two_artifacts_share_the_bytes_that_they_have_in_common(store, pushed, put, other_key, bucket, proxy):
    put(other_key, {**FILES, "engine.json": b"[]"})
    assert opened(bucket.url).push(store.path(other_key), store.manifest(other_key))
    (sent,) = proxy.sent("PUT", "/blobs/")
    assert hashlib.sha256(b"[]").hexdigest() in sent


def test_two_stores_below_one_bucket_do_not_see_each_other(remote, pushed, bucket):
    other = opened(f"s3://{bucket.name}/team/engines2")
    assert not other.has(pushed.key)
    assert other.keys() == []
    assert other.id != remote.id
    assert remote.id == opened(bucket.url).id


@pytest.mark.parametrize("name", ["rank0.bin", "tuning/cache"])
def test_a_file_that_changed_since_it_was_built_is_not_pushed(remote, store, made, bucket, name):
    path = store.path(made.key) / name
    path.chmod(0o644)
    path.write_bytes(FILES[name][:-1] + b"?")
    with pytest.raises(ArtifactCorrupt, match=f"{name} has sha256"):
        remote.push(store.path(made.key), made)
    assert not remote.has(made.key)
    ends = (made.files[name].sha256, f"{made.files[name].sha256}.json")
    assert not [path for path in bucket.objects() if path.endswith(ends)]


ANSWERS = {
    "500": faults.status(500),
    "slow down": faults.status(503, Retry_After="0"),
    "reset": faults.reset,
    "answer lost": faults.lost,
    "stalled": faults.stalled(2.0),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_push_goes_through_a_server_that_fails_now_and_then(bucket, proxy, store, made, answer):
    remote = opened(bucket.url)
    assert remote.id
    fault = proxy.fail("PUT", "/blobs/", ANSWERS[answer], times=2)
    assert remote.push(store.path(made.key), made)
    assert fault.seen == 2
    assert remote.verify(made.key) == []


BODIES = ANSWERS | {
    "truncated": faults.truncated(1000),
    "shortened": faults.shortened(1000),
    "garbled": faults.garbled,
    "stalled amid": faults.stalled(2.0, keep=1000),
}


@pytest.mark.parametrize("answer", BODIES)
def test_a_fetch_goes_through_a_server_that_fails_now_and_then(
    remote, pushed, bucket, proxy, tmp_path, answer
):
    long = pushed.files["rank0.bin"].sha256
    fault = proxy.fail("GET", f"{long}.parts/", BODIES[answer], times=2)
    opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")
    assert fault.seen == 2
    assert contents(tmp_path / "out") == FILES


def test_a_server_that_stays_broken_is_given_up_with_its_name(remote, pushed, bucket, proxy, tmp_path):
    proxy.fail("GET", "/blobs/", faults.status(500), times=1000)
    with pytest.raises(StoreUnusable, match=rf"{bucket.url}: reading blobs/.* failed: status 500; see"):
        opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")


def test_a_body_that_never_ends_right_is_given_up(remote, pushed, bucket, proxy, tmp_path):
    proxy.fail("GET", ".parts/", faults.garbled, times=1000)
    with pytest.raises(ArtifactCorrupt, match=r"\.parts/0000\d.* has sha256 .*; repair"):
        opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["rank0.bin", "tuning/cache"])
@pytest.mark.parametrize("hurt", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_an_object_damaged_on_the_server_is_named_and_not_fetched(
    remote, pushed, bucket, tmp_path, name, hurt
):
    sha256 = pushed.files[name].sha256
    stored = [path for path in bucket.objects("blobs") if sha256 in path and not path.endswith(".json")]
    hurt(bucket.root / stored[len(stored) // 2])
    (problem,) = remote.verify(pushed.key)
    assert problem.startswith(f"{name}: {bucket.url}/{stored[len(stored) // 2]} ")
    with pytest.raises(ArtifactCorrupt, match=sha256):
        remote.fetch_files(pushed.files, tmp_path / "out")


def test_an_index_of_other_parts_is_found_out(remote, pushed, bucket, tmp_path):
    """Its parts are as they say, and the file that they make is another."""
    sha256 = pushed.files["rank0.bin"].sha256
    path = bucket.root / layout.index_path(sha256)
    index = layout.read_index(path.read_text(), "index")
    parts = (index.parts[1], index.parts[0], *index.parts[2:])
    for number in (0, 1):
        source = layout.part_path(sha256, 1 - number, parts[number])
        (bucket.root / layout.part_path(sha256, number, parts[number])).write_bytes(
            (bucket.root / source).read_bytes()
        )
    path.write_text(index.model_copy(update={"parts": parts}).to_text())
    assert "its parts make sha256" in remote.verify(pushed.key)[0]
    with pytest.raises(ArtifactCorrupt, match="its parts make sha256"):
        remote.fetch_files(pushed.files, tmp_path / "out")


@pytest.mark.parametrize("where", ["manifest", "index", "store"])
def test_a_changed_description_is_corrupt(remote, pushed, bucket, tmp_path, where):
    sha256 = pushed.files["rank0.bin"].sha256
    path = {
        "manifest": layout.manifest_path(pushed.key),
        "index": layout.index_path(sha256),
        "store": layout.STORE,
    }[where]
    damage(bucket.root / path)
    remote = opened(bucket.url)
    with pytest.raises(ArtifactCorrupt, match=f"{bucket.url}/{path}"):
        remote.fetch_files(remote.manifest(pushed.key).files, tmp_path / "out")


def test_a_manifest_in_the_wrong_place_is_corrupt(remote, pushed, bucket, other_key):
    target = bucket.root / layout.manifest_path(other_key)
    target.parent.mkdir(parents=True, exist_ok=True)
    (bucket.root / layout.manifest_path(pushed.key)).rename(target)
    with pytest.raises(ArtifactCorrupt, match=f"is the manifest of {pushed.key}"):
        remote.manifest(other_key)
    with pytest.raises(NotFound, match=f"no artifact {pushed.key} in {bucket.url}"):
        remote.manifest(pushed.key)


def test_a_missing_bucket_and_refused_credentials_are_said_so(bucket, store, made, monkeypatch):
    gone = opened("s3://no-such-bucket/x")
    asks = (
        gone.prepare,
        gone.keys,
        lambda: gone.manifest(made.key),
        lambda: gone.lease([made.key], "a test"),
    )
    for ask in asks:
        with pytest.raises(StoreUnusable, match="there is no s3://no-such-bucket; make it"):
            ask()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(StoreUnusable, match="refuses these credentials; check AWS_ACCESS_KEY_ID") as caught:
        opened(bucket.url).prepare()
    assert "hidden" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_so(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(StoreUnusable, match=r"s3://b/x: writing .* failed: .*see whether") as caught:
        RemoteStore(place.parse("s3://b/x"), Patience(retries=1, backoff_s=0.01)).prepare()
    assert "hidden" not in str(caught.value)


def test_what_is_right_in_the_destination_is_kept(remote, pushed, bucket, proxy, tmp_path):
    out = tmp_path / "out"
    remote.fetch_files(pushed.files, out)
    damage(out / "rank0.bin")
    (out / "tuning" / "cache").write_bytes(FILES["tuning/cache"] + b"more")
    (out / "engine.json").unlink()
    opened(bucket.url).fetch_files(pushed.files, out)
    assert contents(out) == FILES
    asked = sorted(path.rpartition("/")[2][:6] for path in proxy.sent("GET", ".parts/"))
    assert asked == ["00002."]
    assert len(proxy.sent("GET", "/blobs/")) == 3  # with the index, and engine.json


PUSHER = """
import sys
from pathlib import Path
from artifacts.store.local import LocalStore
from tests.artifacts.test_remote import opened
store, key = LocalStore(Path(sys.argv[1])), sys.argv[3]
print("ready", flush=True)
opened(sys.argv[2]).push(store.path(key), store.manifest(key))
"""

FETCHER = """
import sys
from pathlib import Path
from tests.artifacts.test_remote import opened
remote = opened(sys.argv[1])
files = remote.manifest(sys.argv[3]).files
print("ready", flush=True)
remote.fetch_files(files, Path(sys.argv[2]))
"""

BIG = {"rank0.bin": random.Random(2).randbytes(150 * PART), "rank1.bin": random.Random(3).randbytes(9)}


def until(count: int, seen) -> None:
    deadline = time.monotonic() + 30
    while len(seen()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_push_killed_amid_is_no_artifact_and_the_next_one_sends_the_rest(
    bucket, proxy, store, put, key, start
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


def test_a_fetch_killed_amid_is_continued(bucket, proxy, store, put, key, start):
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


def test_pushers_of_one_artifact_at_once_make_one(bucket, store, put, key, together):
    put(key, BIG)
    code = PUSHER.replace('print("ready", flush=True)', "input()")
    together(code.replace("sys.argv[3]", f"{key!r}"), 3, store.root, bucket.url)
    remote = opened(bucket.url)
    assert remote.verify(key) == []
    assert bucket.objects("leases") == []


def test_a_part_that_arrived_short_is_noticed_before_the_commit(bucket, proxy, store, made):
    """The server says that it has taken a part, and has less."""
    sha256 = made.files["rank0.bin"].sha256

    def cut(handler, request):
        answer = handler.ask(request)
        (part,) = (path for path in bucket.objects("blobs") if path in request.path)
        (bucket.root / part).write_bytes(b"short")
        handler.reply(*answer)

    proxy.fail("PUT", f"{sha256}.parts/00001.", cut)
    patient = replace(FAST, stall_s=20.0, request_s=20.0)  # a second try would mend it
    remote = RemoteStore(place.parse(bucket.url), patient, part_bytes=PART)
    with pytest.raises(StoreUnusable, match="has 5 of 4,096 bytes after it was written; run again"):
        remote.push(store.path(made.key), made)
    assert not remote.has(made.key)
    assert remote.push(store.path(made.key), made)
    assert remote.verify(made.key) == []


def test_the_sizes_of_parts_are_the_stores_own(bucket, store, made, tmp_path):
    opened(bucket.url).push(store.path(made.key), made)
    other = RemoteStore(place.parse(bucket.url), FAST)  # whose own parts would be longer
    other.fetch_files(made.files, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    assert digest.of_tree({name: file.sha256 for name, file in made.files.items()}) == made.digest


def test_a_hostile_store_cannot_make_us_write_more_than_was_promised(remote, pushed, bucket, tmp_path):
    sha256 = pushed.files["tuning/cache"].sha256
    (bucket.root / layout.blob_path(sha256)).write_bytes(os.urandom(50 * PART))
    with pytest.raises(ArtifactCorrupt, match="has more than its 4,096 bytes"):
        remote.fetch_files({"a": FileRecord(size=PART, sha256=sha256)}, tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_size == PART


def test_a_store_in_google_cloud_storage_is_the_same(store, made, tmp_path, monkeypatch):
    """Its XML API, which our client speaks, is that of S3 but for the signature."""
    (tmp_path / "gcs").mkdir()
    with serving(tmp_path / "gcs", keys=False) as server:
        server.bucket("models")
        account = {"gcs_base_url": server.address, "disable_oauth": True}
        account |= {"client_email": "", "private_key": "", "private_key_id": ""}
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        remote = opened("gs://models/team")
        remote.prepare()
        assert remote.push(store.path(made.key), made)
        assert remote.keys() == [made.key]
        assert remote.verify(made.key) == []
        remote.fetch_files(remote.manifest(made.key).files, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_local_stores_open_as_before(tmp_path):
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    assert open_store(tmp_path).url == str(tmp_path)
