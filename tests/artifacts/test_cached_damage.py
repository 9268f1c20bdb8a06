"""Damage in a cache and behind it: found, fetched again, repaired from the other side, or given up."""

from collections.abc import Callable

import obstore
import pytest

from artifacts.errors import ArtifactCorrupt
from artifacts.store.cached import CachedStore
from artifacts.store.remote import remote_layout
from artifacts.store.repair import repair
from artifacts.store.repair_remote import give_up, repair_all
from artifacts.store.survey import survey
from artifacts.store.survey_remote import survey_remote
from tests.artifacts.caches import commit, hurt
from tests.artifacts.remotes import FILES, damage
from tests.servers.faults import Proxy
from tests.servers.s3 import Bucket


def test_a_fetch_of_damaged_bytes_gives_nothing_and_names_them(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket
):
    here, there = machine("here"), machine("there")
    commit(here, key)
    sha256 = here.manifest(key).files["tuning/cache"].sha256
    damage(bucket.root / remote_layout.blob_path(sha256))
    with pytest.raises(ArtifactCorrupt, match=sha256):
        there.directory(key)
    assert not there.local.has(key)
    assert there.verify(key)[0].startswith("tuning/cache: ")
    assert here.verify(key) == []


def test_a_damaged_copy_in_the_cache_is_fetched_anew_once_it_is_discarded(
    machine: Callable[..., CachedStore], key: str
):
    there = machine("there")
    commit(machine("here"), key)
    path = there.directory(key) / "rank0.bin"
    path.chmod(0o644)
    path.write_bytes(b"x")
    assert there.local.verify(key)[0].startswith("rank0.bin: 1 bytes")
    assert there.verify(key) == []  # it can be had, as a pull would
    assert there.intact(key)
    assert (there.directory(key) / "rank0.bin").read_bytes() == FILES["rank0.bin"]


def test_a_damaged_byte_in_the_cache_is_repaired_from_the_remote_store(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket
):
    there = machine("there")
    commit(machine("here"), key)
    directory = there.directory(key)
    for name in ("rank0.bin", "tuning/cache"):
        path = directory / name
        path.chmod(0o644)
        damage(path)
    damages = survey(there.local).damages
    assert len(damages) == 2
    broken = remote_layout.blob_path(there.manifest(key).files["tuning/cache"].sha256)
    damage(bucket.root / broken)
    assert sorted(done.repaired for done in repair(there.local, damages, there.source())) == [False, True]
    assert [damage.paths[-1].rpartition("/")[2] for damage in survey(there.local).damages] == ["cache"]


def test_whoever_reads_what_is_damaged_in_the_cache_gets_it_fetched_again(
    machine: Callable[..., CachedStore], key: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
):
    there = machine("there")
    commit(machine("here"), key)
    directory = there.directory(key)
    hurt(directory / "rank0.bin")
    before = len(proxy.sent("GET", "/blobs/"))
    assert (there.directory(key) / "rank0.bin").read_bytes() == FILES["rank0.bin"]
    assert len(proxy.sent("GET", "/blobs/")) - before == 7  # its index and parts; the other files are right
    assert "is damaged; its damaged files are fetched again from s3://" in caplog.text
    hurt(directory / "engine.json")
    assert there.file(key, "engine.json").read_bytes() == b"{}"
    hurt(directory / "manifest.json")
    assert there.manifest(key).key == key
    assert there.require(key, "demo:1") == directory
    assert there.local.verify(key) == []
    assert list((there.root / "quarantine").iterdir()) == []
    assert survey(there.local).damages == ()


def test_a_file_that_was_fetched_alone_and_then_damaged_is_fetched_again(
    machine: Callable[..., CachedStore], key: str
):
    there = machine("there")
    commit(machine("here"), key)
    hurt(there.file(key, "rank0.bin"))
    assert there.file(key, "rank0.bin").read_bytes() == FILES["rank0.bin"]
    hurt(there.file(key, "tuning/cache"))
    assert (there.directory(key) / "tuning" / "cache").read_bytes() == FILES["tuning/cache"]
    assert not (there.root / "files" / key).exists()


def test_a_damaged_copy_that_was_never_pushed_is_said_to_be_lost(
    machine: Callable[..., CachedStore], key: str
):
    here = machine("here")
    commit(here, key)
    obstore.delete(here.remote.objects, remote_layout.manifest_path(key))
    hurt(here.path(key) / "rank0.bin")
    assert not here.intact(key)
    with pytest.raises(
        ArtifactCorrupt, match=r"rank0\.bin: sha256 .* does not have it, so run its recipe again"
    ):
        here.directory(key)
    assert here.local.has(key)


def test_what_is_damaged_in_the_remote_store_is_named_and_repaired_from_the_cache(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket
):
    here = machine("here")
    commit(here, key)
    files = here.manifest(key).files
    damage(bucket.root / remote_layout.blob_path(files["tuning/cache"].sha256))
    (bucket.root / bucket.objects(f"{remote_layout.blob_path(files['rank0.bin'].sha256)}.parts")[2]).unlink()
    found = survey_remote(here.remote)
    assert (found.artifacts, len(found.damages)) == (1, 2)
    assert {damage.keys for damage in found.damages} == {(key,)}
    assert all(str(damage).startswith(f"{bucket.url}/blobs/") for damage in found.damages)
    assert [done.repaired for done in repair_all(here, found.damages)] == [True, True]
    assert here.remote.verify(key) == []
    damage(bucket.root / remote_layout.manifest_path(key))
    (damaged,) = survey_remote(here.remote).damages
    assert [done.how for done in repair_all(here, [damaged])] == [f"{bucket.url} has it from the cache"]
    assert survey_remote(here.remote, [key]).damages == ()


def test_what_nobody_has_right_any_more_can_be_given_up_and_built_again(
    machine: Callable[..., CachedStore], key: str, bucket: Bucket
):
    here = machine("here")
    commit(here, key)
    path = remote_layout.blob_path(here.manifest(key).files["tuning/cache"].sha256)
    damage(bucket.root / path)
    hurt(here.path(key) / "tuning" / "cache")
    damages = [*survey(here.local).damages, *survey_remote(here.remote).damages]
    left = [done for done in repair_all(here, damages) if not done.repaired]
    assert len(left) == 2
    assert any("discard the artifacts with --discard" in done.how for done in left)
    for done in left:
        assert give_up(here, done.damage) == [key]
    assert not here.has(key)
    assert not (bucket.root / path).exists()
    commit(here, key)
    assert here.verify(key) == here.remote.verify(key) == []
