"""The local store: complete or absent, intact or named."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import digest
from artifacts.errors import ArtifactCorrupt, NotFound, StoreUnknown
from artifacts.store.draft import Draft
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store

FILES = {"engine.json": b"{}", "rank0.bin": b"0123456789" * 100, "tuning/cache": b"c", "empty": b""}

NAME = st.text("ab.é ", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
TREES = st.dictionaries(
    st.lists(NAME, min_size=1, max_size=3).map(tuple), st.binary(max_size=40), max_size=5
).filter(lambda tree: not any(a != b and b[: len(a)] == a for a in tree for b in tree))
"""Path parts -> content, where no file is also a directory."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_what_is_written_is_there_intact_and_nothing_else(
    store: LocalStore, put: Callable[..., None], all_files: Callable[[Path], list[str]], tree
):
    files = {"/".join(parts): content for parts, content in tree.items()}
    key = digest.of_json({name: content.hex() for name, content in files.items()})
    put(key, files)
    assert store.has(key)
    assert store.verify(key) == []
    assert store.intact(key)
    assert key in set(store.keys())
    assert all_files(store.path(key)) == sorted([*files, "manifest.json"])
    assert {name: (store.path(key) / name).read_bytes() for name in files} == files
    assert list(store.manifest(key).files) == sorted(files)


def test_the_manifest_tells_how_it_came_to_be(store: LocalStore, key: str):
    with store.write(key, kind="engine", step={"params": {"tp": 2}}, host={"cpu": "avx2"}) as draft:
        assert list(draft.path.iterdir()) == []
        assert f".{os.getpid()}." in draft.path.parent.name
        (draft.path / "a").write_bytes(b"abc")
        draft.peak_memory_bytes = 7
        time.sleep(0.01)
    manifest = store.manifest(key)
    assert (manifest.kind, manifest.key, manifest.step, manifest.host, manifest.peak_memory_bytes) == (
        "engine",
        key,
        {"params": {"tp": 2}},
        {"cpu": "avx2"},
        7,
    )
    assert manifest.seconds >= 0.01
    assert manifest.digest == digest.of_tree({"a": digest.of_file(store.path(key) / "a")})


def damage(path: Path, content: bytes) -> None:
    """Writes into a committed file, which is read-only to prevent just that."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found_and_named(store: LocalStore, put: Callable[..., None], key: str, data):
    if not store.has(key):
        put(key, FILES)
    name = data.draw(st.sampled_from(["engine.json", "rank0.bin", "tuning/cache", "manifest.json"]))
    path = store.path(key) / name
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    damage(path, bytes(bad))
    problems = store.verify(key)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}: ")
    assert not store.intact(key)
    damage(path, good)
    assert store.intact(key)


def remove(root: Path) -> None:
    (root / "rank0.bin").unlink()


def truncate(root: Path) -> None:
    damage(root / "rank0.bin", b"0123")


def replace_by_link(root: Path) -> None:
    (root / "rank0.bin").rename(root.parent / "elsewhere")
    (root / "rank0.bin").symlink_to(root.parent / "elsewhere")


def add(root: Path) -> None:
    (root / "tuning" / "more").write_bytes(b"")


def link_a_directory(root: Path) -> None:
    (root / "linked").symlink_to(root.parent)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (remove, "rank0.bin: missing"),
        (truncate, "rank0.bin: 4 bytes; the manifest says 1,000"),
        (replace_by_link, "rank0.bin: not a plain file"),
        (add, "tuning/more: not in the manifest"),
        (link_a_directory, "linked: not in the manifest"),
    ],
)
def test_every_other_damage_is_named(
    store: LocalStore, put: Callable[..., None], key: str, change, problem: str
):
    put(key, FILES)
    change(store.path(key))
    assert store.verify(key) == [problem]
    assert not store.intact(key)


def test_every_problem_is_named_at_once(store: LocalStore, put: Callable[..., None], key: str):
    put(key, FILES)
    for name in ("engine.json", "rank0.bin"):
        (store.path(key) / name).unlink()
    add(store.path(key))
    assert [problem.partition(":")[0] for problem in store.verify(key)] == [
        "engine.json",
        "rank0.bin",
        "tuning/more",
    ]


def test_a_manifest_in_the_wrong_place_is_corrupt(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, FILES)
    store.path(other_key).parent.mkdir(exist_ok=True)
    store.path(key).rename(store.path(other_key))
    with pytest.raises(ArtifactCorrupt, match=f"is the manifest of {key}"):
        store.manifest(other_key)
    assert not store.intact(other_key)


def test_a_discarded_artifact_is_set_aside_and_can_be_built_again(
    store: LocalStore, put: Callable[..., None], key: str, all_files: Callable[[Path], list[str]]
):
    put(key, FILES)
    damage(store.path(key) / "engine.json", b"[]")
    aside = store.discard(key)
    assert not store.has(key)
    assert aside.parent == store.root / "quarantine"
    assert (aside / "engine.json").read_bytes() == b"[]"
    put(key, FILES)
    store.discard(key)
    put(key, FILES)
    assert store.verify(key) == []


def test_a_directory_without_a_manifest_is_no_artifact_and_does_not_stop_one(
    store: LocalStore, put: Callable[..., None], key: str
):
    store.path(key).mkdir(parents=True)
    (store.path(key) / "half").write_bytes(b"?")
    assert not store.has(key)
    assert not store.intact(key)
    put(key, FILES)
    assert store.verify(key) == []


def test_the_first_of_two_writers_of_a_key_wins_and_the_second_does_not_notice(store: LocalStore, key: str):
    with store.write(key, kind="engine", step={}, host={}) as slow:
        (slow.path / "a").write_bytes(b"slow")
        with store.write(key, kind="engine", step={}, host={}) as fast:
            (fast.path / "a").write_bytes(b"fast")
    assert (store.path(key) / "a").read_bytes() == b"fast"
    assert store.verify(key) == []
    assert list((store.root / "staging").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failed_block_leaves_nothing(
    store: LocalStore, key: str, all_files: Callable[[Path], list[str]], error
):
    def fail(draft: Draft) -> None:
        (draft.path / "half").write_bytes(b"?")
        raise error

    with pytest.raises(type(error)), store.write(key, kind="engine", step={}, host={}) as draft:
        fail(draft)
    assert not store.has(key)
    assert all_files(store.root) == []


@pytest.mark.parametrize("name", ["manifest.json", "version.json"])
def test_a_draft_may_not_hold_the_files_of_the_store(
    store: LocalStore, key: str, all_files: Callable[[Path], list[str]], name: str
):
    with (
        pytest.raises(ValueError, match=f"{name}' is reserved"),
        store.write(key, kind="k", step={}, host={}) as draft,
    ):
        (draft.path / name).write_bytes(b"{}")
    assert all_files(store.root) == []


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc"), lambda p: p.symlink_to("gone"), os.mkfifo])
def test_a_draft_may_hold_plain_files_only(
    store: LocalStore, key: str, all_files: Callable[[Path], list[str]], make
):
    with (
        pytest.raises(ValueError, match="'odd' is not a plain file"),
        store.write(key, kind="k", step={}, host={}) as draft,
    ):
        make(draft.path / "odd")
    assert all_files(store.root) == []


def test_committed_files_are_read_only_and_can_be_removed(
    store: LocalStore, put: Callable[..., None], key: str
):
    put(key, FILES)
    assert {path.stat().st_mode & 0o777 for path in store.path(key).rglob("*") if path.is_file()} == {0o444}
    assert (store.path(key) / "tuning").stat().st_mode & 0o300 == 0o300


def test_an_unchanged_file_is_read_once_and_a_touched_one_again(
    store: LocalStore, put: Callable[..., None], key: str
):
    put(key, FILES)
    time.sleep(digest.RACY_NS / 1e9 + 0.1)
    assert store.intact(key)
    large = store.path(key) / "rank0.bin"
    with closing(sqlite3.connect(store.digests.cache)) as db, db:
        assert db.execute("SELECT count(*) FROM inode").fetchone() == (len(FILES),)
        stat = large.stat()
        db.execute(
            "UPDATE inode SET sha256 = 'remembered' WHERE inode = ?", (f"{stat.st_dev}:{stat.st_ino}",)
        )
    assert not store.intact(key)  # it looked into the cache, not into the file
    assert store.verify(key) == []  # which reads
    large.touch()
    assert store.intact(key)


def test_nothing_is_made_by_looking(tmp_path: Path, key: str):
    store = open_store(tmp_path / "store")
    assert (store.has(key), store.keys(), store.intact(key), store.sweep()) == (False, [], False, [])
    with pytest.raises(NotFound, match=f"no artifact {key}"):
        store.verify(key)
    assert store.free_bytes() > 0
    assert not store.root.exists()


def test_logs_outlive_failed_builds(store: LocalStore, key: str):
    store.log(key).write_text("last words")
    with pytest.raises(RuntimeError, match="boom"), store.write(key, kind="engine", step={}, host={}):
        raise RuntimeError("boom")
    assert store.log(key).read_text() == "last words"
    assert store.log(key) == store.root / "logs" / f"{key}.log"


@pytest.mark.parametrize("key", ["", "abc", "../" * 22, "A" * 64, "g" * 64, "a" * 65, "a" * 64 + "\n"])
def test_only_digests_are_keys(store: LocalStore, key: str):
    with pytest.raises(ValueError, match="is not 64 hexadecimal digits"):
        store.path(key)


@pytest.mark.parametrize("url", ["hdfs://name/path", "ftp://host", "memory://", "://x"])
def test_unknown_stores_are_refused_with_the_known_ones(url: str):
    with pytest.raises(StoreUnknown, match=f"{url}'; this version has file"):
        open_store(url)


@pytest.mark.parametrize("url", ["", "file://"])
def test_a_store_needs_a_directory(url: str):
    with pytest.raises(StoreUnknown, match="names no directory"):
        open_store(url)


def test_urls_and_paths_open_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    roots = {
        open_store(where).root for where in ("a", Path("a"), f"file://{tmp_path}/a", tmp_path / "a", "~/a")
    }
    assert roots == {tmp_path / "a"}
    assert isinstance(open_store("a"), LocalStore)


def test_store_and_client_import_nothing_heavy(run_python: Callable[[str], str]):
    code = """
import sys
import artifacts.store.local, artifacts.client
print(sorted({"torch", "prefect", "transformers", "alembic", "cryptography", "model_signing"} & set(sys.modules)))
"""
    assert run_python(code) == "[]\n"
