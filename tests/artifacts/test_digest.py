"""Digests of values, files and trees, and the cache of file digests."""

import hashlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import digest
from artifacts.digest import FileDigests
from artifacts.errors import FileChanged

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def turned(value: Any) -> Any:
    """The same value with every object's keys inserted in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@given(VALUES)
def test_the_order_of_keys_does_not_count(value):
    assert digest.of_json(turned(value)) == digest.of_json(value)


@given(st.lists(SCALARS, min_size=1), st.integers(0))
def test_a_changed_item_counts(values, place):
    changed = list(values)
    changed[place % len(values)] = {"was": values[place % len(values)]}
    assert digest.of_json(changed) != digest.of_json(values)


def test_the_digest_is_sha256_of_the_shortest_json():
    assert (
        digest.of_json({"b": [1, "é"], "a": None})
        == hashlib.sha256(b'{"a":null,"b":[1,"\\u00e9"]}').hexdigest()
    )
    assert digest.of_json((1, 2)) == digest.of_json([1, 2])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(number: float):
    with pytest.raises(ValueError, match=f"(?i)not JSON compliant.*{number}|Out of range"):
        digest.of_json({"scale": [number]})


def test_keys_that_are_no_strings_are_refused():
    with pytest.raises(ValueError, match="key 1 is a int"):
        digest.of_json({"ranks": [{1: "a"}]})


def test_files_are_hashed_by_their_bytes(tmp_path: Path):
    files = {tmp_path / f"{n}": bytes([n]) * 1000 * n for n in range(20)}
    for path, content in files.items():
        path.write_bytes(content)
    expected = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    assert digest.of_files(files) == expected
    assert {path: digest.of_file(path) for path in files} == expected


@given(st.dictionaries(st.text(), st.text()))
def test_trees_do_not_depend_on_the_order_of_names(files):
    assert digest.of_tree(turned(files)) == digest.of_tree(files)


def test_a_file_that_is_being_written_is_refused(tmp_path: Path):
    path, stop = tmp_path / "growing", threading.Event()
    path.write_bytes(bytes(100_000_000))  # tens of milliseconds to hash, at the least

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.wait(0.001):
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(FileChanged, match="growing changed while it was being read"):
            digest.of_files([path])
    finally:
        stop.set()
        writer.join()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files old enough that their timestamps tell."""
    root = tmp_path_factory.mktemp("settled")
    paths = [root / f"{n}.bin" for n in range(30)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 1000)
    time.sleep(digest.RACY_NS / 1e9 + 0.1)
    return paths


def entries(cache: Path) -> dict[str, str]:
    """Device and inode -> digest, as remembered."""
    db = sqlite3.connect(cache)
    rows = dict(db.execute("SELECT inode, sha256 FROM inode"))
    db.close()
    return rows


def inode(path: Path) -> str:
    return f"{path.stat().st_dev}:{path.stat().st_ino}"


def poison(cache: Path) -> None:
    """Gives every remembered file a digest it cannot have, so that it shows who reads the cache."""
    db = sqlite3.connect(cache)
    with db:
        db.execute("UPDATE inode SET sha256 = 'remembered'")
    db.close()


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, settled: list[Path]):
    cache = tmp_path / "sub" / "digests.db"
    first = FileDigests(cache).digests(settled)
    assert first == digest.of_files(settled)
    assert entries(cache) == {inode(path): found for path, found in first.items()}
    poison(cache)
    assert set(FileDigests(cache).digests(settled).values()) == {"remembered"}


def test_a_changed_file_is_read_again(tmp_path: Path, settled: list[Path]):
    digests = FileDigests(tmp_path / "digests.db")
    digests.digest(settled[0])
    poison(digests.cache)
    before = settled[0].stat()
    content = settled[0].read_bytes()
    settled[0].write_bytes(content[::-1][:-1] + b"!")
    os.utime(settled[0], ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same mtime
    assert digests.digest(settled[0]) == digest.of_file(settled[0])


def test_a_young_file_is_never_remembered(tmp_path: Path):
    path, digests = tmp_path / "young", FileDigests(tmp_path / "digests.db")
    path.write_bytes(b"1")
    assert digests.digest(path) == digest.of_file(path)
    assert not digests.cache.exists()


def test_a_broken_cache_costs_time_only_and_is_reported(
    tmp_path: Path, settled: list[Path], caplog: pytest.LogCaptureFixture
):
    cache = tmp_path / "digests.db"
    cache.write_bytes(b"this is no database, but longer than a header " * 10)
    assert FileDigests(cache).digests(settled[1:]) == digest.of_files(settled[1:])
    assert f"digest cache {cache} cannot be used" in caplog.text


def test_many_processes_share_one_cache(
    tmp_path: Path, settled: list[Path], together: Callable[..., list[str]]
):
    code = """
import sys, pathlib, logging
logging.basicConfig()
from artifacts.digest import FileDigests
input()
digests = FileDigests(pathlib.Path(sys.argv[1]))
paths = sorted(pathlib.Path(sys.argv[2]).iterdir())
print([digests.digest(p) for p in paths] == list(digests.digests(paths).values()))
"""
    cache = tmp_path / "digests.db"
    assert together(code, 4, cache, settled[0].parent) == ["True"] * 4
    expected = digest.of_files(settled[1:])
    assert {path: entries(cache)[inode(path)] for path in settled[1:]} == expected


def test_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent"):
        FileDigests(tmp_path / "digests.db").digest(tmp_path / "absent")


def test_a_file_that_others_removed_meanwhile_is_not_known_and_no_error(tmp_path: Path):
    cache, gone = FileDigests(tmp_path / "digests.db"), tmp_path / "gone"
    assert cache.known([gone]) == {}


def test_a_cache_that_was_cleared_takes_no_room_and_is_used_again(tmp_path: Path):
    path, digests = tmp_path / "file", FileDigests(tmp_path / "digests.db")
    path.write_bytes(b"x")
    digests.clear()
    assert not digests.cache.exists()
    wanted = {path: digest.of_file(path)}
    digests.vouch(wanted, time.time_ns() + 10**12)
    assert digests.known([path]) == wanted
    digests.clear()
    assert digests.cache.stat().st_size == 0
    assert digests.known([path]) == {}
    digests.vouch(wanted, time.time_ns() + 10**12)
    assert digests.known([path]) == wanted


def test_a_cache_that_another_process_writes_is_not_cleared_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, digests = tmp_path / "file", FileDigests(tmp_path / "digests.db")
    path.write_bytes(b"x")
    digests.vouch({path: digest.of_file(path)}, time.time_ns() + 10**12)
    monkeypatch.setattr("artifacts.digest.BUSY_S", 0.01)
    with closing(sqlite3.connect(digests.cache)) as db:
        db.execute("BEGIN IMMEDIATE")
        digests.clear()
    assert digests.known([path]) == {path: digest.of_file(path)}
