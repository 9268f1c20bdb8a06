"""Several processes at once in one local store, and processes that are killed there."""

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.actor import whoami
from artifacts.errors import StoreBusy
from artifacts.store import lock
from artifacts.store.local import LocalStore
from tests.forked import Forked

WRITER = """
import sys, time
from artifacts.store.opening import open_store
store, key, number = open_store(sys.argv[1]), sys.argv[2], sys.argv[3]
input()
for _ in range(5):
    with store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "by").write_text(number)
        (draft.path / "weights").write_bytes(number.encode() * 100_000)
print(store.verify(key), len((store.path(key) / "weights").read_bytes()))
"""


def test_many_writers_of_one_key_make_one_artifact(
    store: LocalStore, key: str, together: Callable[..., list[str]]
):
    assert together(WRITER, 4, store.root, key) == ["[] 100000"] * 4
    winner = (store.path(key) / "by").read_bytes()
    assert (store.path(key) / "weights").read_bytes() == winner * 100_000
    assert store.keys() == [key]
    assert list((store.root / "staging").iterdir()) == []
    assert not (store.root / "quarantine").exists()


BUILDER = """
import sys, time, pathlib
from artifacts.store.opening import open_store
store, keys, built = open_store(sys.argv[1]), sys.argv[2].split(), pathlib.Path(sys.argv[3])
input()
for key in keys:
    with store.lock(key):
        if not store.has(key):
            with store.write(key, kind="engine", step={}, host={}) as draft:
                with built.open("a") as file:
                    file.write(key + "\\n")
                time.sleep(0.02)
                (draft.path / "a").write_text("a")
print(all(store.intact(key) for key in keys))
"""


def test_concurrent_runs_build_each_artifact_once(
    store: LocalStore, tmp_path: Path, together: Callable[..., list[str]]
):
    keys = [f"{n:064x}" for n in range(8)]
    built = tmp_path / "built"
    assert together(BUILDER, 4, store.root, " ".join(keys), built) == ["True"] * 4
    assert built.read_text().split() == keys
    assert list((store.root / "locks").iterdir()) == []


HOLDER = """
import sys, time
from artifacts.store.opening import open_store
with open_store(sys.argv[1]).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def test_who_waits_is_told_for_whom_and_a_killed_holder_frees_the_lock(
    store: LocalStore, key: str, start: Callable[..., Forked]
):
    holder = start(HOLDER, store.root, key, 60)
    assert holder.stdout.readline() == "held\n"
    told = []

    def waiting(whom: str) -> None:
        told.append(whom)
        holder.kill()

    with store.lock(key, waiting=waiting):
        assert told == [f"process {holder.pid} of {whoami()}, at most 24 h"]


def test_waiting_for_a_lock_has_an_end_and_names_the_holder(
    store: LocalStore, key: str, start: Callable[..., Forked]
):
    holder = start(HOLDER, store.root, key, 60)
    assert holder.stdout.readline() == "held\n"
    said = f"process {holder.pid} of {re.escape(whoami())} has held .* for more than 0.005 minutes; end that process"
    with pytest.raises(StoreBusy, match=said), store.lock(key, patience_s=0.3):
        pytest.fail("held")


def test_waiting_for_a_directory_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Forked]
):
    monkeypatch.setattr(lock, "SHORT_PATIENCE_S", 0.3)
    with (
        lock.alone(tmp_path),
        pytest.raises(StoreBusy, match=f"another process has held {tmp_path}"),
        lock.alone(tmp_path),
    ):
        pytest.fail("held")


def test_a_wait_that_nobody_listens_to_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(lock, "TELL_AFTER_S", 0.05)
    held = lock.acquire(tmp_path / "a.lock")
    with pytest.raises(StoreBusy):
        lock.acquire(tmp_path / "a.lock", patience_s=0.5)
    lock.release(tmp_path / "a.lock", held)
    said = (
        f"waiting for process {os.getpid()} of {whoami()}, at most 0.00833333 minutes, which holds {tmp_path}"
    )
    assert caplog.text.count(said) == 1


def test_versions_before_this_one_and_this_one_understand_each_others_lock_files(tmp_path: Path):
    """They write, and read as a number, the process id alone."""
    path = tmp_path / "a.lock"
    held = lock.acquire(path)
    assert int(path.read_bytes()[:20]) == os.getpid()
    path.write_text("4711")
    with pytest.raises(StoreBusy, match=r"^process 4711 has held"):
        lock.acquire(path, patience_s=0.2)
    lock.release(path, held)


def test_locks_of_different_keys_are_independent(store: LocalStore, key: str, other_key: str):
    with store.lock(key), store.lock(other_key, waiting=lambda whom: pytest.fail("waited")):
        assert len(list((store.root / "locks").iterdir())) == 2


def test_the_lock_ends_with_a_failed_block(store: LocalStore, key: str):
    with pytest.raises(RuntimeError, match="boom"), store.lock(key):
        raise RuntimeError("boom")
    with store.lock(key, waiting=lambda whom: pytest.fail("waited")):
        pass


VICTIM = """
import sys
from artifacts.store.opening import open_store
store, key = open_store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
input()
with store.lock(key), store.write(key, kind="engine", step={}, host={}) as draft:
    for n in range(40):
        (draft.path / f"{n}").write_bytes(bytes([n]) * 200_000)
print("done", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_no_object_and_only_litter(
    store: LocalStore, start: Callable[..., Forked], all_files: Callable[[Path], list[str]]
):
    chance, outcomes = random.Random(7), []
    first = start(VICTIM, store.root, f"{0:064x}")
    first.stdout.readline()
    begun = time.monotonic()
    first.communicate("go\n")
    took = time.monotonic() - begun
    for number in range(1, 9):
        key = f"{number:064x}"
        victim = start(VICTIM, store.root, key)
        victim.stdout.readline()
        victim.stdin.write("go\n")
        victim.stdin.flush()
        time.sleep(chance.uniform(0, took))
        victim.kill()
        victim.wait()
        outcomes.append(store.has(key))
        assert store.has(key) == store.path(key).exists()
        if store.has(key):
            assert store.verify(key) == []
        with store.lock(key):
            store.sweep()
        assert list((store.root / "staging").iterdir()) == []
    assert False in outcomes


DYING = """
import sys
from artifacts.store.opening import open_store
with open_store(sys.argv[1]).write(sys.argv[2], kind="engine", step={}, host={}) as draft:
    (draft.path / "half").write_bytes(b"?")
    print("in", flush=True)
    input()
"""


def test_sweeping_takes_the_litter_of_the_dead_and_leaves_the_living(
    store: LocalStore, key: str, other_key: str, start: Callable[..., Forked]
):
    dead = start(DYING, store.root, key)
    assert dead.stdout.readline() == "in\n"
    staging = store.root / "staging"
    with store.write(other_key, kind="engine", step={}, host={}) as draft:
        (draft.path / "a").write_bytes(b"a")
        assert store.sweep() == []
        assert len(list(staging.iterdir())) == 2
        dead.kill()
        dead.wait()
        removed = store.sweep()
        assert [path.name.startswith(f"{key[:12]}.{dead.pid}.") for path in removed] == [True]
        assert list(staging.iterdir()) == [draft.path.parent]
    assert store.verify(other_key) == []


def test_sweeping_leaves_what_it_did_not_make(store: LocalStore, key: str):
    foreign = store.root / "staging" / "notes"
    foreign.mkdir(parents=True)
    (foreign / "keep.txt").write_text("mine")
    (store.root / "staging" / "file").write_text("mine")
    assert store.sweep() == []
    assert (foreign / "keep.txt").read_text() == "mine"


def test_sweeping_while_others_write_disturbs_nobody(store: LocalStore, together: Callable[..., list[str]]):
    code = """
import sys
from artifacts.store.opening import open_store
store, number = open_store(sys.argv[1]), int(sys.argv[2])
input()
for n in range(30):
    key = f"{number * 1000 + n:064x}"
    if number == 0:
        store.sweep()
    else:
        with store.write(key, kind="engine", step={}, host={}) as draft:
            (draft.path / "a").write_text("a")
        assert store.verify(key) == []
"""
    assert together(code, 4, store.root) == [""] * 4
    assert len(store.keys()) == 90
    assert list((store.root / "staging").iterdir()) == []
