"""Contents shared between artifacts: the same bytes once, and never the wrong ones."""

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import digest
from artifacts.errors import ArtifactCorrupt, StoreUnusable
from artifacts.manifest import seal
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.store.sharing import measure, share
from artifacts.store.store_identity import STORE
from tests.present import present

SHA = digest.of_json  # any 64 hexadecimal digits


def names(store: LocalStore, key: str) -> dict[str, int]:
    """Name -> how many names its file has."""
    return {name: (store.path(key) / name).stat().st_nlink for name in store.manifest(key).files}


def damage(path: Path, content: bytes, *, unseen: bool = False) -> None:
    """Writes into a committed file; `unseen` leaves the times that a disk's own fault would leave."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def settled(*paths: Path) -> None:
    """Makes files look old, so that their times tell."""
    for path in paths:
        os.utime(path, ns=(0, time.time_ns() - 2 * digest.RACY_NS))


CONTENT = st.sampled_from([b"", b"a", b"b", b"a" * 5000])
FILES = st.dictionaries(st.sampled_from(["x", "y", "d/z"]), CONTENT, max_size=3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees=st.lists(FILES, min_size=1, max_size=4), data=st.data())
def test_equal_bytes_are_one_file_and_removing_an_artifact_takes_only_its_own(
    tmp_path: Path, put: Callable[..., None], trees, data
):
    store = open_store(tmp_path / digest.of_json([os.urandom(8).hex()])[:12])
    keys = {SHA(["tree", number]): files for number, files in enumerate(trees)}
    for key, files in keys.items():
        put(key, files, into=store)
    gone = data.draw(st.sets(st.sampled_from(sorted(keys))))
    inodes = {path.stat().st_ino for path in (store.root / "objects").rglob("*") if path.name in "xyz"}
    contents = [content for files in keys.values() for content in files.values()]
    assert len(inodes) == len(set(contents) - {b""}) + contents.count(b"")
    for key in gone:
        store.remove(key)
    left = {key: files for key, files in keys.items() if key not in gone}
    assert store.keys() == sorted(left)
    for key, files in left.items():
        assert store.verify(key) == []
        assert {name: (store.path(key) / name).read_bytes() for name in files} == files
    assert len(store.blobs.digests()) == len({c for files in left.values() for c in files.values() if c})


def test_bytes_freed_are_those_that_nobody_else_has(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"shared": b"s" * 1000, "own": b"o" * 70})
    put(other_key, {"shared": b"s" * 1000})
    manifest = (store.path(key) / "manifest.json").stat().st_size
    assert store.remove(key) == 70 + manifest
    assert store.remove(other_key) > 1000
    assert store.blobs.digests() == []


def test_an_artifact_made_elsewhere_comes_without_the_files_that_are_here(
    tmp_path: Path, store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    elsewhere = open_store(tmp_path / "elsewhere")
    put(key, {"weights": b"w" * 100, "own": b"o", "d/empty": b""}, into=elsewhere)
    put(other_key, {"same": b"w" * 100})
    manifest = elsewhere.manifest(key)
    with store.receive(manifest) as draft:
        (draft.path / "own").write_bytes(b"o")
        draft.digests["own"] = manifest.files["own"].sha256
    assert store.manifest(key) == manifest
    assert store.verify(key) == []
    assert names(store, key) == {"weights": 3, "own": 2, "d/empty": 1}


@pytest.mark.parametrize("wrong", [{"own": b"x"}, {}, {"own": b"o", "more": b""}])
def test_what_is_not_as_its_manifest_says_is_not_received(
    tmp_path: Path, store: LocalStore, put: Callable[..., None], key: str, wrong: dict[str, Any]
):
    elsewhere = open_store(tmp_path / "elsewhere")
    put(key, {"own": b"o"}, into=elsewhere)

    def receive() -> None:
        with store.receive(elsewhere.manifest(key)) as draft:
            for name, content in wrong.items():
                (draft.path / name).write_bytes(content)

    with pytest.raises(ArtifactCorrupt, match="not as in its manifest"):
        receive()
    assert not store.has(key)


@pytest.mark.parametrize("unseen", [False, True])
def test_a_damaged_content_is_never_linked_into_a_new_artifact(
    store: LocalStore,
    put: Callable[..., None],
    key: str,
    other_key: str,
    caplog: pytest.LogCaptureFixture,
    unseen: bool,
):
    put(key, {"a": b"right" * 100})
    settled(store.path(key) / "a")
    assert store.intact(key)
    damage(store.path(key) / "a", b"wrong" * 100, unseen=unseen)
    put(other_key, {"b": b"right" * 100})
    assert store.verify(other_key) == []
    assert store.verify(key) != []
    assert "is damaged and is replaced" in caplog.text
    blob = store.blobs.path(digest.of_file(store.path(other_key) / "b"))
    assert blob.samefile(store.path(other_key) / "b")  # the next one links to the right bytes


def test_what_verify_finds_damaged_is_vouched_for_no_longer(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    """As after a fault of the disk: the bytes differ, and no time says so."""
    put(key, {"a": b"right"})
    blob = store.blobs.path(digest.of_file(store.path(key) / "a"))
    settled(blob)
    damage(blob, b"wrong", unseen=True)
    store.digests.vouch({blob: blob.name}, time.time_ns())
    assert store.intact(key)  # nothing shows without reading
    assert store.verify(key) != []
    assert not store.intact(key)
    put(other_key, {"b": b"right"})
    assert store.verify(other_key) == []


def test_sharing_and_removing_cost_no_second_reading(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    content = os.urandom(1000)

    def filled(of: str) -> None:
        with store.write(of, kind="engine", step={}, host={}) as draft:
            (draft.path / "w").write_bytes(content)
            settled(draft.path / "w")

    filled(key)
    file = store.path(key) / "w"
    assert store.digests.known([file]) == {file: digest.of_file(file)}
    filled(other_key)
    assert store.digests.known([file]) == {file: digest.of_file(file)}
    store.remove(other_key)
    assert store.digests.known([file]) == {file: digest.of_file(file)}
    damage(file, content[::-1])  # a write shows at once
    assert store.digests.known([file]) == {}


def test_weights_that_an_engine_links_from_its_checkpoint_are_read_once_for_it(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    size = 8 << 20
    put(key, {"rank0.safetensors": os.urandom(size)})  # just now, so that nothing is remembered of it
    with store.write(other_key, kind="engine", step={}, host={}) as draft:
        (draft.path / "rank0.safetensors").hardlink_to(store.path(key) / "rank0.safetensors")
        (draft.path / "stage0.pt2").write_bytes(os.urandom(size))
        before = bytes_read()
    assert 2 * size <= bytes_read() - before < 2.5 * size
    assert store.verify(other_key) == []


def bytes_read() -> int:
    """Bytes that this process has asked the system for, as Linux counts them."""
    found = re.search(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_a_second_name_given_meanwhile_is_no_change(tmp_path: Path):
    path, number = tmp_path / "large", 0
    path.write_bytes(bytes(50_000_000))
    (tmp_path / "second").hardlink_to(path)

    def link(_: int) -> None:
        nonlocal number
        number += 1
        (tmp_path / str(number)).hardlink_to(path)

    assert digest.of_file(path, link) == digest.of_files([path])[path]


LINKING = """
import sys
from artifacts.store.opening import open_store
store, number = open_store(sys.argv[1]), int(sys.argv[2])
input()
for n in range(25):
    key = f"{number * 1000 + n:064x}"
    with store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "shared").write_bytes(bytes([n]) * 3000)
        (draft.path / "own").write_text(key)
    if n % 3 == number % 3:
        store.remove(key)
    else:
        assert store.verify(key) == [], store.verify(key)
"""


def test_writers_and_removers_at_once_lose_and_leak_nothing(
    store: LocalStore, together: Callable[..., list[str]]
):
    assert together(LINKING, 3, store.root) == [""] * 3
    assert [key for key in store.keys() if store.verify(key)] == []  # noqa: SIM118 a store is no dict
    for digest_ in store.blobs.digests():
        assert digest.of_file(store.blobs.path(digest_)) == digest_
    store.blobs.release(store.blobs.digests())
    used = {record.sha256 for key in store.keys() for record in store.manifest(key).files.values()}  # noqa: SIM118 a store is no dict
    assert set(store.blobs.digests()) <= used


def test_a_store_filled_without_sharing_loses_nothing_and_can_adopt_it(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"same" * 1000, "c": b"other"})
    unshare(store, key)
    put(other_key, {"b": b"same" * 1000})
    assert measure(store).held_bytes == measure(store).listed_bytes == 8005
    assert share(store) == []
    assert measure(store).held_bytes == 4005
    assert [store.verify(key), store.verify(other_key)] == [[], []]
    assert names(store, key) == {"a": 3, "c": 2}
    assert list((store.root / "staging").iterdir()) == []


def test_adopting_leaves_damaged_files_alone_and_names_them(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"same" * 1000})
    unshare(store, key)
    put(other_key, {"b": b"same" * 1000})
    damage(store.path(key) / "a", b"SAME" * 1000)
    assert share(store) == [store.path(key) / "a"]
    assert store.verify(other_key) == []


def unshare(store: LocalStore, key: str) -> None:
    """Makes the artifact what a version without sharing wrote."""
    for name in store.manifest(key).files:
        path = store.path(key) / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        path.chmod(0o444)
    store.blobs.release(store.blobs.digests())


def test_where_files_take_no_more_links_artifacts_have_bytes_of_their_own(
    tmp_path: Path, put: Callable[..., None], key: str, other_key: str
):
    """A mount point inside the store: links across it are refused, as on a file system without links."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    store = open_store(tmp_path / "store")
    aside = shm / f"enginery-test-{os.getpid()}"
    aside.mkdir()
    try:
        store.root.mkdir()
        (store.root / "blobs").symlink_to(aside)
        put(key, {"a": b"same"}, into=store)
        put(other_key, {"a": b"same"}, into=store)
        assert [store.verify(key), store.verify(other_key)] == [[], []]
        assert names(store, key) == names(store, other_key) == {"a": 1}
        with pytest.raises(OSError, match="cross-device") as caught:
            (aside / "x").hardlink_to(store.path(key) / "a")
        assert caught.value.errno == errno.EXDEV
    finally:
        for path in sorted(aside.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        aside.rmdir()


def test_a_store_has_one_id_for_good(
    store: LocalStore, put: Callable[..., None], key: str, together: Callable[..., list[str]]
):
    assert store.identity() is None
    code = "import sys; from artifacts.store.opening import open_store; input(); print(open_store(sys.argv[1]).id)"
    ids = together(code, 4, store.root)
    assert set(ids) == {store.id}
    put(key, {"a": b"a"})
    assert present(store.identity()).id == store.id == open_store(store.root).id
    assert list((store.root / "locks").iterdir()) == []


def test_the_first_write_names_the_store_and_another_store_differs(
    tmp_path: Path, store: LocalStore, put: Callable[..., None], key: str
):
    put(key, {"a": b"a"})
    assert present(store.identity()).layout == 1
    assert open_store(tmp_path / "other").id != store.id


def test_a_newer_layout_is_refused_and_a_damaged_name_stops_writing_only(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"a"})
    good = (store.root / STORE).read_text()
    (store.root / STORE).write_text(seal({"layout": 2, "id": store.id}))
    with pytest.raises(StoreUnusable, match="layout 2, and this version reads up to 1"):
        open_store(store.root)
    (store.root / STORE).write_text(good.replace("1", "2", 1))
    assert open_store(store.root).verify(key) == []
    with pytest.raises(ArtifactCorrupt, match=r"store\.json: does not match its seal"):
        put(other_key, {"a": b"a"})
    (store.root / STORE).write_text(seal({"layout": 1, "id": "../x"}))
    with pytest.raises(ArtifactCorrupt, match="has no valid layout and id"):
        store.identity()
