"""Several contents of one key: each is kept, found by its own digest, and told from what is not there."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artifacts.address import address, key_of, parse_address
from artifacts.collection.inventory_remote import Reader
from artifacts.collection.marking import Policy, mark
from artifacts.errors import ArtifactCorrupt, NotFound
from artifacts.manifest import MANIFEST, Manifest
from artifacts.registry.retention import RetainedVersion
from artifacts.store.cached import CachedStore
from artifacts.store.claim import Claim
from artifacts.store.local import LocalStore
from artifacts.store.remote.remote_store import RemoteStore
from artifacts.store.survey_remote import survey_remote

ONE = {"rank0.bin": b"one" * 3000, "weights": b"shared" * 1000, "tuning/times": b"1"}
TWO = {"rank0.bin": b"two" * 3000, "weights": b"shared" * 1000, "tuning/times": b"2"}
WARMER = {**ONE, "tuning/times": b"3"}


def built(key, files, folder):
    """The manifest of a build in a store of its own, and that store: as another machine would make it."""
    other = LocalStore(folder)
    with other.write(key, kind="engine", step={"kind": "engine"}, host={}) as draft:
        for name, data in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(data)
    return other.manifest(key), other


def arrive(store: LocalStore, key: str, files: dict[str, Any], folder: Path):
    """A build from elsewhere is taken into the store as it is."""
    manifest, _ = built(key, files, folder)
    with store.receive(manifest) as draft:
        for name, data in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(data)
    return manifest


@pytest.fixture
def both(store: LocalStore, put: Callable[..., None], key: str, tmp_path: Path) -> tuple[Manifest, Manifest]:
    """A store with two contents of a key: their manifests, the one that builds find first."""
    put(key, ONE)
    return store.manifest(key), arrive(store, key, TWO, tmp_path / "elsewhere")


@pytest.mark.parametrize("text", ["a" * 64, f"{'a' * 64}.{'b' * 64}"])
def test_addresses_are_read_as_they_are_written(text: str):
    assert address(*parse_address(text)) == text
    assert key_of(text) == "a" * 64


@pytest.mark.parametrize("text", ["", "a" * 63, f"{'a' * 64}.", f"{'a' * 64}.b", f"../{'a' * 61}", "A" * 64])
def test_anything_else_is_no_address(text: str):
    with pytest.raises(ValueError, match="is not 64 hexadecimal digits"):
        parse_address(text)


def test_two_contents_of_a_key_are_kept_and_each_is_found(
    store: LocalStore, both: tuple[Manifest, Manifest], key: str
):
    one, two = both
    assert one.digest != two.digest
    assert store.contents(key) == [one.address, two.address]
    assert store.keys() == [key, two.address]
    for manifest, files in ((one, ONE), (two, TWO)):
        assert store.manifest(manifest.address) == manifest
        assert store.verify(manifest.address) == []
        assert store.intact(manifest.address)
        assert store.file(manifest.address, "rank0.bin").read_bytes() == files["rank0.bin"]
    assert store.manifest(key) == one
    assert store.file(one.address, "weights").samefile(store.file(two.address, "weights"))


def test_the_same_content_with_other_caches_is_no_second_one(
    store: LocalStore, both: tuple[Manifest, Manifest], key: str, tmp_path: Path
):
    warmer = arrive(store, key, WARMER, tmp_path / "warmer")
    assert warmer.address == both[0].address
    assert len(store.contents(key)) == 2
    assert store.manifest(warmer.address).caches == both[0].caches
    assert store.verify(warmer.address) == []


def test_a_content_that_is_not_there_is_not_taken_for_another(
    store: LocalStore, both: tuple[Manifest, Manifest], key: str
):
    missing = address(key, "f" * 64)
    assert not store.has(missing)
    assert not store.intact(missing)
    with pytest.raises(NotFound, match=f"digest {'f' * 16}: it has another build of that key, with digest"):
        store.manifest(missing)
    with pytest.raises(NotFound, match="it was never built here, or was removed"):
        store.manifest(address("e" * 64, "f" * 64))


@pytest.mark.parametrize("gone", [0, 1])
def test_removing_one_leaves_the_other_by_key_and_by_address(
    store: LocalStore, both: tuple[Manifest, Manifest], key: str, gone: int
):
    going, staying = both[gone], both[1 - gone]
    assert store.remove(going.address) > 0
    assert not store.has(going.address)
    assert store.contents(key) == [staying.address]
    assert store.manifest(key) == store.manifest(staying.address) == staying
    assert store.verify(key) == []


def test_a_damaged_one_is_set_aside_alone(store: LocalStore, both: tuple[Manifest, Manifest], key: str):
    one, two = both
    store.path(one.address).joinpath("rank0.bin").unlink()
    assert not store.intact(key)
    store.discard(key)
    assert store.intact(key)
    assert store.contents(key) == [two.address]
    assert store.has(two.address)
    assert not store.has(one.address)


def test_a_damaged_manifest_is_said_to_be_damaged_and_not_another_build(
    store: LocalStore, both: tuple[Manifest, Manifest], key: str
):
    path = store.path(key) / MANIFEST
    path.chmod(0o644)
    path.write_text(path.read_text().replace("engine", "Engine", 1))
    with pytest.raises(ArtifactCorrupt, match="does not match its seal"):
        store.manifest(both[0].address)
    assert store.verify(both[0].address)[0].startswith(MANIFEST)
    assert store.verify(both[1].address) == []
    assert store.contents(key) == [both[1].address]


def test_a_build_is_kept_beside_an_older_content_where_that_will_not_do(
    store: LocalStore, put: Callable[..., None], key: str
):
    put(key, ONE)
    put(key, TWO)
    assert store.contents(key) == [store.manifest(key).address]
    with store.write(key, kind="engine", step={}, host={}, beside=True) as draft:
        (draft.path / "rank0.bin").write_bytes(TWO["rank0.bin"])
    assert [store.file(one, "rank0.bin").read_bytes() for one in store.contents(key)] == [
        ONE["rank0.bin"],
        TWO["rank0.bin"],
    ]


@pytest.fixture
def far(remote: RemoteStore, tmp_path: Path, key: str) -> list[Manifest]:
    """A remote store with two contents of a key: their manifests, the first one first."""
    made = []
    for number, files in enumerate((ONE, TWO)):
        manifest, other = built(key, files, tmp_path / f"maker{number}")
        assert remote.push(other.path(key), manifest)
        made.append(manifest)
    return made


def test_a_remote_store_keeps_both_and_finds_each(
    remote: RemoteStore, far: list[Manifest], key: str, tmp_path: Path
):
    one, two = far
    assert remote.contents(key) == [one.address, two.address]
    assert remote.keys() == [key, two.address]
    assert [remote.manifest(each) for each in (key, one.address, two.address)] == [one, one, two]
    assert [remote.verify(each.address) for each in far] == [[], []]
    assert survey_remote(remote).damages == ()
    assert not remote.has(address(key, "f" * 64))
    with pytest.raises(
        NotFound, match=f"{remote.url} does not have engine {key[:12]} with digest {'f' * 16}"
    ):
        remote.manifest(address(key, "f" * 64))
    for manifest in far:  # neither is sent again, nor is the same content with other caches
        assert not remote.push(tmp_path, manifest)
    assert not remote.push(tmp_path, built(key, WARMER, tmp_path / "warmer")[0])


@pytest.mark.parametrize("gone", [0, 1])
def test_a_remote_store_without_one_has_the_other_by_key_and_by_address(
    remote: RemoteStore, far: list[Manifest], key: str, gone: int
):
    going, staying = far[gone], far[1 - gone]
    remote.discard(going.address)
    assert remote.has(key)
    assert not remote.has(going.address)
    assert remote.manifest(key) == remote.manifest(staying.address) == staying


def test_a_cache_brings_each_content_and_builds_take_the_one_that_is_here(
    machine: Callable[..., CachedStore], far: list[Manifest], key: str
):
    one, two = far
    there = machine("there")
    assert there.contents(key) == [one.address, two.address]
    for manifest, files in ((two, TWO), (one, ONE)):
        assert (there.directory(manifest.address) / "rank0.bin").read_bytes() == files["rank0.bin"]
    assert there.local.contents(key) == [two.address, one.address]
    assert there.manifest(key) == two  # the first that came here
    assert there.manifest(one.address) == one
    there.path(two.address).joinpath("rank0.bin").unlink()
    assert there.verify(two.address) == []  # it can be fetched
    assert (there.directory(two.address) / "rank0.bin").read_bytes() == TWO["rank0.bin"]
    assert (there.directory(one.address) / "rank0.bin").read_bytes() == ONE["rank0.bin"]


def test_a_cache_with_another_build_pushes_it_beside_the_one_that_is_there(
    machine: Callable[..., CachedStore],
    far: list[Manifest],
    remote: RemoteStore,
    key: str,
    put: Callable[..., None],
):
    remote.discard(far[1].address)
    here = machine("here")
    put(key, TWO, into=here.local)
    here.push(key)
    assert remote.contents(key) == [far[0].address, far[1].address]
    assert here.manifest(far[0].address).digest == far[0].digest


def test_a_cache_evicts_only_what_is_in_the_remote_store_by_content(
    machine: Callable[..., CachedStore],
    remote: RemoteStore,
    key: str,
    tmp_path: Path,
    put: Callable[..., None],
):
    manifest, other = built(key, ONE, tmp_path / "maker")
    remote.push(other.path(key), manifest)
    here = machine("here", max_bytes=1, idle_s=0)
    put(key, TWO, into=here.local)  # of a push that failed
    here.directory(manifest.address)
    here.cache.shrink(1)
    (left,) = here.local.contents(key)
    assert here.local.file(left, "rank0.bin").read_bytes() == TWO["rank0.bin"]


def test_a_damaged_copy_gives_way_to_the_same_content_with_the_caches_that_are_there(
    machine: Callable[..., CachedStore],
    remote: RemoteStore,
    key: str,
    tmp_path: Path,
    put: Callable[..., None],
):
    manifest, other = built(key, WARMER, tmp_path / "maker")
    remote.push(other.path(key), manifest)
    here = machine("here")
    put(key, ONE, into=here.local)
    assert here.manifest(manifest.address).caches != manifest.caches
    here.local.path(key).joinpath("tuning/times").unlink()
    assert here.manifest(manifest.address).caches == manifest.caches
    assert (here.directory(manifest.address) / "tuning/times").read_bytes() == b"3"
    assert here.local.verify(key) == []


def test_a_damaged_copy_that_only_another_build_could_replace_is_not_called_intact(
    machine: Callable[..., CachedStore], far: list[Manifest], key: str, put: Callable[..., None]
):
    here = machine("here")
    put(key, WARMER | {"rank0.bin": b"a third build"}, into=here.local)
    assert here.intact(key)
    here.local.path(key).joinpath("rank0.bin").unlink()
    assert not here.intact(key)
    here.discard(key)
    assert here.intact(key)
    assert here.manifest(key) == far[0]


@pytest.mark.parametrize("named", [0, 1])
def test_gc_of_a_remote_store_keeps_the_content_that_a_version_names(
    remote: RemoteStore, far: list[Manifest], key: str, named: int
):
    def version(manifest, number) -> RetainedVersion:
        at = datetime(2026, 1, number, tzinfo=UTC)
        return RetainedVersion(name="demo", number=number, engine_key=key, lineage=(key,), published_at=at,
                     manifest_digest=manifest.digest, aliases=("prod",) if manifest is far[named] else ())  # fmt: skip

    versions = [version(manifest, number) for number, manifest in enumerate(far, 1)]
    rules = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0)
    found = Reader(remote.objects).inventory(datetime.now(UTC), lambda done, total, what: None)
    plan = mark(found, versions, [], rules, datetime.now(UTC))
    (gone,) = plan.removed
    assert gone.key == (key, far[1].address)[1 - named]
    assert gone.versions == (versions[1 - named].reference,)
    assert [one.reference for one in plan.collected] == [versions[1 - named].reference]
    assert far[0].files["weights"].sha256 not in plan.blobs  # the other has it too
    assert far[1 - named].files["rank0.bin"].sha256 in plan.blobs
    leased = Claim(path="", keys=(key,), blobs=(), what="a pull", holder="me", ttl_s=60, age_s=0)
    assert mark(found, versions, [leased], rules, datetime.now(UTC)).removed == ()
