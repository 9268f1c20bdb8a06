"""A server that fails, stalls, garbles, loses and lies: what goes through, and what is said."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnusable
from artifacts.manifest import FileRecord, Manifest
from artifacts.store.local import LocalStore
from artifacts.store.remote import remote_layout, remote_place
from artifacts.store.remote.remote_place import Patience
from artifacts.store.remote.remote_store import RemoteStore
from tests.artifacts.remotes import FAST, FILES, PART, contents, damage, opened
from tests.servers import faults
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket

ANSWERS = {
    "500": faults.status(500),
    "overloaded": faults.status(503, Retry_After="0"),
    "reset": faults.reset,
    "answer lost": faults.lost,
    "stalled": faults.stalled(2.0),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_push_goes_through_a_server_that_fails_now_and_then(
    bucket: Bucket, proxy: Proxy, store: LocalStore, made: Manifest, answer: str
):
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
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, proxy: Proxy, tmp_path: Path, answer: str
):
    long = pushed.files["rank0.bin"].sha256
    fault = proxy.fail("GET", f"{long}.parts/", BODIES[answer], times=2)
    opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")
    assert fault.seen == 2
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_is_removed_is_gone_though_the_answer_is_late_or_lost(
    bucket: Bucket, proxy: Proxy, remote: RemoteStore, answer
):
    """A lease that stays though its holder has ended would hold up every sweep for minutes."""
    with remote.lease(["a"], "a build"):
        fault = proxy.fail("POST", "delete", answer)
    assert (fault.seen, bucket.objects("leases")) == (1, [])
    remote.prepare()
    fault = proxy.fail("POST", "delete", answer)
    remote.prepare()
    assert (fault.seen, bucket.objects("probes")) == (1, [])


def test_a_server_that_stays_broken_is_given_up_with_its_name(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, proxy: Proxy, tmp_path: Path
):
    proxy.fail("GET", "/blobs/", faults.status(500), times=1000)
    with pytest.raises(StoreUnusable, match=rf"{bucket.url}: reading blobs/.* failed: status 500; check"):
        opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")


def test_a_body_that_never_ends_right_is_given_up(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, proxy: Proxy, tmp_path: Path
):
    proxy.fail("GET", ".parts/", faults.garbled, times=1000)
    with pytest.raises(ArtifactCorrupt, match=r"\.parts/0000\d.* has sha256 .*; repair"):
        opened(bucket.url).fetch_files(pushed.files, tmp_path / "out")


@pytest.mark.parametrize("name", ["rank0.bin", "tuning/cache"])
@pytest.mark.parametrize("hurt", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_an_object_damaged_on_the_server_is_named_and_not_fetched(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, tmp_path: Path, name: str, hurt
):
    sha256 = pushed.files[name].sha256
    stored = [path for path in bucket.objects("blobs") if sha256 in path and not path.endswith(".json")]
    hurt(bucket.root / stored[len(stored) // 2])
    (problem,) = remote.verify(pushed.key)
    assert problem.startswith(f"{name}: {bucket.url}/{stored[len(stored) // 2]} ")
    with pytest.raises(ArtifactCorrupt, match=sha256):
        remote.fetch_files(pushed.files, tmp_path / "out")


def test_an_index_of_other_parts_is_found_out(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, tmp_path: Path
):
    """Its parts are as they say, and the file that they make is another."""
    sha256 = pushed.files["rank0.bin"].sha256
    path = bucket.root / remote_layout.index_path(sha256)
    index = remote_layout.read_index(path.read_text(), "index")
    parts = (index.parts[1], index.parts[0], *index.parts[2:])
    for number in (0, 1):
        source = remote_layout.part_path(sha256, 1 - number, parts[number])
        (bucket.root / remote_layout.part_path(sha256, number, parts[number])).write_bytes(
            (bucket.root / source).read_bytes()
        )
    path.write_text(index.model_copy(update={"parts": parts}).to_text())
    assert "its parts make sha256" in remote.verify(pushed.key)[0]
    with pytest.raises(ArtifactCorrupt, match="its parts make sha256"):
        remote.fetch_files(pushed.files, tmp_path / "out")


@pytest.mark.parametrize("where", ["manifest", "index", "store"])
def test_a_changed_description_is_corrupt(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, tmp_path: Path, where: str
):
    sha256 = pushed.files["rank0.bin"].sha256
    path = {
        "manifest": remote_layout.manifest_path(pushed.key),
        "index": remote_layout.index_path(sha256),
        "store": remote_layout.STORE,
    }[where]
    damage(bucket.root / path)
    remote = opened(bucket.url)
    with pytest.raises(ArtifactCorrupt, match=f"{bucket.url}/{path}"):
        remote.fetch_files(remote.manifest(pushed.key).files, tmp_path / "out")


def test_a_manifest_in_the_wrong_place_is_corrupt(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, other_key: str
):
    target = bucket.root / remote_layout.manifest_path(other_key)
    target.parent.mkdir(parents=True, exist_ok=True)
    (bucket.root / remote_layout.manifest_path(pushed.key)).rename(target)
    with pytest.raises(ArtifactCorrupt, match=f"is the manifest of {pushed.key}"):
        remote.manifest(other_key)
    with pytest.raises(NotFound, match=f"no artifact {pushed.key} in {bucket.url}"):
        remote.manifest(pushed.key)


def test_a_missing_bucket_and_refused_credentials_are_said_so(
    bucket: Bucket, store: LocalStore, made: Manifest, monkeypatch: pytest.MonkeyPatch
):
    gone = opened("s3://no-such-bucket/x")
    asks = (
        gone.prepare,
        gone.keys,
        lambda: gone.manifest(made.key),
        lambda: gone.lease([made.key], "a test"),
    )
    for ask in asks:
        with pytest.raises(StoreUnusable, match="there is no bucket s3://no-such-bucket; create it"):
            ask()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(StoreUnusable, match="access denied; check AWS_ACCESS_KEY_ID") as caught:
        opened(bucket.url).prepare()
    assert "hidden" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(StoreUnusable, match=r"s3://b/x: writing .* failed: .*check that") as caught:
        RemoteStore(remote_place.parse("s3://b/x"), Patience(retries=1, backoff_s=0.01)).prepare()
    assert "hidden" not in str(caught.value)


def test_a_part_that_arrived_short_is_noticed_before_the_commit(
    bucket: Bucket, proxy: Proxy, store: LocalStore, made: Manifest
):
    """The server says that it has taken a part, and has less."""
    sha256 = made.files["rank0.bin"].sha256

    def cut(handler, request) -> None:
        answer = handler.ask(request)
        (part,) = (path for path in bucket.objects("blobs") if path in request.path)
        (bucket.root / part).write_bytes(b"short")
        handler.reply(*answer)

    proxy.fail("PUT", f"{sha256}.parts/00001.", cut)
    patient = replace(FAST, stall_s=20.0, request_s=20.0)  # a second try would mend it
    remote = RemoteStore(remote_place.parse(bucket.url), patient, part_bytes=PART)
    with pytest.raises(StoreUnusable, match="has 5 of 4,096 bytes after it was written; run again"):
        remote.push(store.path(made.key), made)
    assert not remote.has(made.key)
    assert remote.push(store.path(made.key), made)
    assert remote.verify(made.key) == []


def test_a_hostile_store_cannot_make_us_write_more_than_was_promised(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, tmp_path: Path
):
    sha256 = pushed.files["tuning/cache"].sha256
    (bucket.root / remote_layout.blob_path(sha256)).write_bytes(os.urandom(50 * PART))
    with pytest.raises(ArtifactCorrupt, match="has more than its 4,096 bytes"):
        remote.fetch_files({"a": FileRecord(size=PART, sha256=sha256)}, tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_size == PART
