"""A corrupted byte anywhere is found, named under all its names, and repaired where right bytes are to be had."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import digest
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.repair import StoreSource, repair, source_at
from artifacts.store.store_identity import STORE
from artifacts.store.survey import survey
from tests.forked import Forked

FILES = {"engine.json": b"{}", "rank0.bin": b"0123456789" * 100, "tuning/cache": b"c", "empty": b""}
MORE = {"engine.json": b"[]", "weights.bin": FILES["rank0.bin"]}


def write(path: Path, content: bytes) -> None:
    """Writes into a committed file."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def own(path: Path) -> None:
    """Gives a file bytes of its own, as on a disk without links."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def twin(tmp_path: Path, put: Callable[..., None], key: str, other_key: str) -> LocalStore:
    """Another store with the same artifacts."""
    other = open_store(tmp_path / "twin")
    put(key, FILES, into=other)
    put(other_key, MORE, into=other)
    return other


@pytest.fixture
def full(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str, twin: LocalStore
) -> LocalStore:
    put(key, FILES)
    put(other_key, MORE)
    for one in (key, other_key):  # of which only this store has the manifest otherwise
        (twin.path(one) / "manifest.json").unlink()
        (twin.path(one) / "manifest.json").write_bytes((store.path(one) / "manifest.json").read_bytes())
    return store


def test_a_sound_store_is_read_once_per_content_and_progress_ends_at_the_total(full: LocalStore):
    told = []
    found = survey(full, progress=lambda done, total: told.append((done, total)))
    assert found.damages == ()
    assert (found.artifacts, found.files, found.size_bytes) == (2, 5, 1005)
    assert told[-1] == (1005, 1005)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found_named_and_repaired_from_another_store(
    full: LocalStore, twin: LocalStore, key: str, other_key: str, data
):
    """Of any file of the store but the cache of digests, which only saves time, under a changed or an old time."""
    files = sorted(
        path for part in ("objects", "blobs") for path in (full.root / part).rglob("*") if path.is_file()
    )
    path = data.draw(st.sampled_from([path for path in files if path.stat().st_size]))
    before, good = path.stat(), path.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    write(path, bytes(bad))
    if data.draw(st.booleans()):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (damage,) = survey(full).damages
    same = [one for one in files if one.exists() and one.samefile(path)]
    assert damage.paths == tuple(one.relative_to(full.root).as_posix() for one in sorted(same))
    (done,) = repair(full, [damage], StoreSource(twin))
    assert (done.repaired, done.how) == (True, "from the other copy")
    assert survey(full).damages == ()
    assert path.read_bytes() == good
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.stat().st_nlink == before.st_nlink  # shared again by all who shared it
    assert list((full.root / "staging").iterdir()) == []


def test_without_another_copy_the_damage_is_named_with_the_way_out(
    full: LocalStore, key: str, other_key: str
):
    write(full.path(key) / "rank0.bin", b"x" * 1000)
    (damage,) = survey(full).damages
    assert damage.keys == tuple(sorted([key, other_key]))
    assert str(damage).startswith(f"objects/{damage.keys[1][:2]}/{damage.keys[1]}/")
    assert "(and 2 other names): sha256 " in str(damage)
    (done,) = repair(full, [damage])
    assert (done.repaired, done.how) == (
        False,
        "the store has no other copy, and no source was named; run its recipe again",
    )
    assert survey(full).damages == (damage,)


def test_another_copy_in_the_store_repairs_and_is_shared_from_then_on(
    full: LocalStore, key: str, other_key: str
):
    own(full.path(other_key) / "weights.bin")
    write(full.path(key) / "rank0.bin", b"x" * 1000)
    (damage,) = survey(full).damages
    (done,) = repair(full, [damage])
    assert done.repaired
    assert done.how.endswith(f"{other_key}/weights.bin")
    assert survey(full).damages == ()
    assert (full.path(key) / "rank0.bin").samefile(full.path(other_key) / "weights.bin")


def test_an_artifact_set_aside_can_give_its_good_files(
    full: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    own(full.path(key) / "rank0.bin")
    full.discard(key)
    write(full.path(other_key) / "weights.bin", b"")
    (done,) = repair(full, survey(full).damages)
    assert done.how.startswith("from quarantine/")
    assert full.verify(other_key) == []


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def directory(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


@pytest.mark.parametrize("change", [remove, link, directory])
@pytest.mark.parametrize("name", ["rank0.bin", "empty", "tuning/cache"])
def test_files_that_are_missing_or_no_files_are_put_back(full: LocalStore, key: str, change, name: str):
    change(full.path(key) / name)
    assert all(done.repaired for done in repair(full, survey(full).damages))
    assert survey(full).damages == ()
    assert (full.path(key) / name).read_bytes() == FILES[name]
    assert full.intact(key)


def test_what_is_none_of_an_artifact_is_set_aside(full: LocalStore, key: str):
    (full.path(key) / "tuning" / "more").write_bytes(b"mine")
    (done,) = repair(full, survey(full).damages)
    assert done.damage.what == "not in the manifest"
    assert (full.root / done.how.removeprefix("set aside as ")).read_bytes() == b"mine"


def test_a_damaged_content_that_nobody_uses_is_removed(full: LocalStore, put: Callable[..., None]):
    key = digest.of_json("third")
    put(key, {"lone": b"lone"})
    blob = full.blobs.path(digest.of_file(full.path(key) / "lone"))
    kept = blob.read_bytes()
    full.remove(key)
    blob.write_bytes(kept[::-1])
    (done,) = repair(full, survey(full).damages)
    assert done.how == "removed: no manifest lists it"
    assert not blob.exists()


def test_a_damaged_manifest_comes_back_and_then_its_files_are_judged(
    full: LocalStore, twin: LocalStore, key: str
):
    write(full.path(key) / "manifest.json", b"{}")
    write(full.path(key) / "engine.json", b"xx")
    assert any(damage.paths[0].endswith("manifest.json") for damage in survey(full).damages)
    assert not any(done.repaired for done in repair(full, survey(full).damages) if done.damage.keys)
    assert all(done.repaired for done in repair(full, survey(full).damages, StoreSource(twin)))
    assert survey(full).damages == ()
    assert full.verify(key) == []


def test_an_artifact_built_again_meanwhile_is_not_touched(
    full: LocalStore, twin: LocalStore, put: Callable[..., None], key: str
):
    write(full.path(key) / "engine.json", b"xx")
    damages = survey(full).damages
    full.discard(key)
    put(key, {**FILES, "engine.json": b"{ }"})
    list(repair(full, damages, StoreSource(twin)))
    assert (full.path(key) / "engine.json").read_bytes() == b"{ }"
    assert full.verify(key) == []


def test_another_store_with_wrong_bytes_repairs_nothing(full: LocalStore, twin: LocalStore, key: str):
    write(full.path(key) / "engine.json", b"xx")
    write(twin.path(key) / "engine.json", b"yy")
    (done,) = repair(full, survey(full).damages, StoreSource(twin))
    assert (done.repaired, "neither this store nor the other one" in done.how) == (False, True)
    assert (full.path(key) / "engine.json").read_bytes() == b"xx"


def test_the_damaged_name_of_the_store_is_found(full: LocalStore):
    text = (full.root / STORE).read_text()
    (full.root / STORE).write_text(text.replace(full.id[:8], "00000000"))
    (damage,) = survey(full).damages
    assert (damage.paths, damage.keys) == ((STORE,), ())
    assert damage.what == "does not match its seal; it was changed after it was written"
    (done,) = repair(full, [damage])
    assert (done.repaired, "no registry knows the id" in done.how) == (False, True)
    bound = open_store(full.root.parent / "twin").id
    (done,) = repair(full, [damage], registered_id=bound)
    assert done.repaired
    assert full.id == bound
    assert survey(full).damages == ()


def test_a_pulled_directory_is_a_source_of_its_own_artifact(
    full: LocalStore, twin: LocalStore, key: str, other_key: str
):
    for one in (key, other_key):
        write(full.path(one) / "engine.json", b"xx")
    write(full.path(key) / "manifest.json", b"{}")
    pulled = source_at(str(twin.path(key)))  # which holds files and a manifest as a pulled directory does
    done = list(repair(full, survey(full).damages, pulled))
    assert sorted(one.repaired for one in done) == [False, True, True, True]
    assert full.verify(key) == []
    assert [problem.partition(":")[0] for problem in full.verify(other_key)] == ["engine.json"]


def test_a_store_is_a_source_by_its_path(full: LocalStore, twin: LocalStore, key: str):
    write(full.path(key) / "engine.json", b"xx")
    (done,) = repair(full, survey(full).damages, source_at(str(twin.root)))
    assert done.repaired


def test_artifacts_that_come_and_go_while_all_is_read_are_no_damage(
    full: LocalStore, start: Callable[..., Forked]
):
    code = """
import sys
from artifacts.store.opening import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for n in range(10_000):
    key = f"{n:064x}"
    with store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "a").write_bytes(bytes([n % 251]) * 1000)
    store.remove(key)
"""
    child = start(code, full.root)
    child.stdout.readline()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert survey(full).damages == ()
    assert child.poll() is None, child.stderr.read()
