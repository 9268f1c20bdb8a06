"""Stores in object storage, over a real S3 server: their URLs and parts, what is pushed and what is fetched."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.errors import ArtifactCorrupt, StoreUnknown
from artifacts.manifest import Manifest, digests_of
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.remote import remote_layout, remote_place
from artifacts.store.remote.lanes import in_order
from artifacts.store.remote.remote_store import RemoteStore
from tests.artifacts.remotes import FAST, FILES, PART, contents, damage, opened
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket, serving


@given(size=st.integers(0, 200), part=st.integers(1, 50))
def test_parts_tile_the_file(size, part):
    spans = remote_layout.spans(size, part)
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
def test_a_secret_in_a_url_is_refused_and_not_shown(url: str):
    with pytest.raises(StoreUnknown) as caught:
        open_store(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "gs://", "s3://bucket/../x", "az://bucket/./x"])
def test_a_url_without_a_bucket_is_refused(url: str):
    with pytest.raises(StoreUnknown, match="names no bucket"):
        open_store(url)


def test_what_is_pushed_is_there_in_parts_and_its_manifest_came_last(
    remote: RemoteStore, store: LocalStore, made: Manifest, bucket: Bucket, proxy: Proxy
):
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
    assert written[-1].endswith(remote_layout.manifest_path(made.key))
    assert written[-2].endswith(remote_layout.index_path(long))
    assert bucket.objects("leases") == []


def test_pushing_again_moves_no_file(
    remote: RemoteStore, store: LocalStore, pushed: Manifest, proxy: Proxy, bucket: Bucket
):
    assert opened(bucket.url).push(store.path(pushed.key), pushed) is False
    assert proxy.sent("PUT", "/blobs/") == []


def test_two_artifacts_share_the_bytes_that_they_have_in_common(
    store: LocalStore,
    pushed: Manifest,
    put: Callable[..., None],
    other_key: str,
    bucket: Bucket,
    proxy: Proxy,
):
    put(other_key, {**FILES, "engine.json": b"[]"})
    assert opened(bucket.url).push(store.path(other_key), store.manifest(other_key))
    (sent,) = proxy.sent("PUT", "/blobs/")
    assert hashlib.sha256(b"[]").hexdigest() in sent


def test_two_stores_below_one_bucket_do_not_see_each_other(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket
):
    other = opened(f"s3://{bucket.name}/team/engines2")
    assert not other.has(pushed.key)
    assert other.keys() == []
    assert other.id != remote.id
    assert remote.id == opened(bucket.url).id


@pytest.mark.parametrize("name", ["rank0.bin", "tuning/cache"])
def test_a_file_that_changed_since_it_was_built_is_not_pushed(
    remote: RemoteStore, store: LocalStore, made: Manifest, bucket: Bucket, name: str
):
    path = store.path(made.key) / name
    path.chmod(0o644)
    path.write_bytes(FILES[name][:-1] + b"?")
    with pytest.raises(ArtifactCorrupt, match=f"{name} has sha256"):
        remote.push(store.path(made.key), made)
    assert not remote.has(made.key)
    ends = (made.files[name].sha256, f"{made.files[name].sha256}.json")
    assert not [path for path in bucket.objects() if path.endswith(ends)]


def test_what_is_right_in_the_destination_is_kept(
    remote: RemoteStore, pushed: Manifest, bucket: Bucket, proxy: Proxy, tmp_path: Path
):
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


def test_the_sizes_of_parts_are_the_stores_own(
    bucket: Bucket, store: LocalStore, made: Manifest, tmp_path: Path
):
    opened(bucket.url).push(store.path(made.key), made)
    other = RemoteStore(remote_place.parse(bucket.url), FAST)  # whose own parts would be longer
    other.fetch_files(made.files, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    sums = {name: file.sha256 for name, file in made.files.items()}
    assert digests_of(sums) == (made.digest, made.caches)


@pytest.mark.slow
def test_a_store_in_google_cloud_storage_is_the_same(
    store: LocalStore, made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
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


def test_local_stores_open_as_before(tmp_path: Path):
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    assert open_store(tmp_path).url == str(tmp_path)
