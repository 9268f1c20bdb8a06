"""What builds learned is offered as it was kept, or not at all; whatever was changed is named and removed."""

import hashlib
import os
import shutil
import signal
import subprocess  # noqa: TID251 a builder is killed from outside
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import digest
from artifacts.manifest import FileRecord, seal, unseal
from artifacts.store import tuning_cache
from artifacts.store.local import LocalStore
from artifacts.store.repair import repair
from artifacts.store.survey import survey
from artifacts.store.tuning_cache import INDEX, UNSEALED
from tests.present import present

FILES = {
    "timing.cache": b"0123456789" * 50,
    "timing.json": b"{}",
    "linear/a1.json": b'{"dot": 1}',
    "none": b"",
}
SETTINGS = digest.of_json({"backend": "aoti", "tp": 1})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def learned(directory: Path, files: dict[str, bytes]) -> dict[str, FileRecord]:
    """Writes what a build learned; gives the records that its manifest has."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return {name: FileRecord(size=len(content), sha256=sha256(content)) for name, content in files.items()}


def kept(store: LocalStore, files: dict[str, bytes], name: str = SETTINGS) -> Path:
    """Keeps files in a store as a build does; gives the directory."""
    aside = store.root.parent / "engines" / f"{os.getpid()}.{time.time_ns()}"
    place = store.root / "tuning" / name
    tuning_cache.keep(place, aside, learned(aside, files), store.root / "staging")
    shutil.rmtree(aside)
    return place


def offered(store: LocalStore, target: Path, name: str = SETTINGS) -> tuple[list[str], dict[str, bytes]]:
    """What was dropped, and what is offered."""
    shutil.rmtree(target, ignore_errors=True)
    problems = tuning_cache.offer(store.root / "tuning" / name, target, store.root / "staging")
    files = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if not path.is_dir()}
    return problems, {name: path.read_bytes() for name, path in files.items()}


def change(path: Path, content: bytes) -> None:
    """Writes into a file that is read-only."""
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def place(store: LocalStore) -> Path:
    store.prepare()
    return kept(store, FILES)


def test_what_was_kept_is_offered_and_nothing_where_nothing_was(
    store: LocalStore, place: Path, tmp_path: Path
):
    assert offered(store, tmp_path / "copy") == ([], FILES)
    assert offered(store, tmp_path / "copy", "f" * 64) == ([], {})
    assert survey(store).damages == ()
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in place.iterdir())


def test_a_later_build_adds_its_own_and_its_files_take_the_place_of_those_of_their_names(
    store: LocalStore, place: Path, tmp_path: Path
):
    kept(store, {"linear/b2.json": b"b", "timing.cache": b"more"})
    later = {**FILES, "linear/b2.json": b"b", "timing.cache": b"more"}
    assert offered(store, tmp_path / "copy") == ([], later)
    assert len(list(place.iterdir())) == len(later) + 1  # contents that gave way are gone
    kept(store, FILES)
    assert offered(store, tmp_path / "copy")[1] == {**later, **FILES}


def test_a_file_that_is_not_what_its_manifest_says_is_not_kept(
    store: LocalStore, place: Path, tmp_path: Path
):
    records = learned(tmp_path / "engine", {"good": b"1", "bad": b"2"})
    change(tmp_path / "engine" / "bad", b"3")
    tuning_cache.keep(place, tmp_path / "engine", records, store.root / "staging")
    assert offered(store, tmp_path / "copy") == ([], {**FILES, "good": b"1"})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    change(path, bytes(content))


def truncate(path: Path) -> None:
    change(path, path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").touch()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (flip, "timing.cache: sha256 "),
        (truncate, "timing.cache: 499 bytes; they were 500"),
        (link, "timing.cache: not a plain file"),
        (pipe, "timing.cache: not a plain file"),
        (folder, "timing.cache: not a plain file"),
        (Path.unlink, "timing.cache: missing"),
    ],
)
def test_a_damaged_entry_is_dropped_and_said_once_and_the_others_are_offered(
    store: LocalStore, place: Path, tmp_path: Path, damage, what: str
):
    damage(place / sha256(FILES["timing.cache"]))
    problems, files = offered(store, tmp_path / "copy")
    assert problems[0].startswith(what)
    right = {name: content for name, content in FILES.items() if name != "timing.cache"}
    assert files == right
    assert offered(store, tmp_path / "copy") == ([], right)
    assert survey(store).damages == ()
    kept(store, FILES)
    assert offered(store, tmp_path / "copy") == ([], FILES)


def test_contents_that_were_swapped_are_both_dropped(store: LocalStore, tmp_path: Path):
    place = kept(store, {"a": b"11", "b": b"22", "c": b"33"})
    one, other = place / sha256(b"11"), place / sha256(b"22")
    one.rename(place / "aside")
    other.rename(one)
    (place / "aside").rename(other)
    problems, files = offered(store, tmp_path / "copy")
    assert [problem.partition(":")[0] for problem in problems] == ["a", "b"]
    assert files == {"c": b"33"}


def test_the_index_of_another_place_and_what_stands_in_none_are_not_offered(
    store: LocalStore, place: Path, tmp_path: Path
):
    other = kept(store, {"mine": b"1"}, "f" * 64)
    (place / "probe.so").write_bytes(b"ELF")
    (place / "more").mkdir()
    (place / "more" / "file").write_bytes(b"")
    problems, files = offered(store, tmp_path / "copy")
    assert (problems, files) == (["more: is not in the index", "probe.so: is not in the index"], FILES)
    shutil.rmtree(other)
    shutil.copytree(place, other)
    problems, files = offered(store, tmp_path / "copy", other.name)
    wrong = f"index.json: is the index of {SETTINGS[:12]}; it was put into the wrong place"
    assert (problems, files) == ([wrong], {})
    assert [path.name for path in other.iterdir()] == [INDEX]
    assert offered(store, tmp_path / "copy") == ([], FILES)


def sealed(place: Path, **changes: object) -> bytes:
    """The index with other values under a seal that holds: a seal is no signature."""
    return seal({**unseal((place / INDEX).read_text(), INDEX), **changes}).encode()


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"../../outside": {"size": 1, "sha256": "a" * 64}}, 1),
        ({"/etc/passwd": {"size": 1, "sha256": "a" * 64}}, 1),
        ({"a": {"size": -1, "sha256": "a" * 64}}, 1),
        ({"a": {"size": 1, "sha256": "../x"}}, 1),
        ({"a": {"size": 1, "sha256": "a" * 64}, "a/b": {"size": 1, "sha256": "b" * 64}}, 1),
        ([], 1),
        ({}, 2),
    ],
)
def test_an_index_that_is_sealed_and_none_is_dropped(
    store: LocalStore, place: Path, tmp_path: Path, files: dict[str, Any], version: int
):
    change(place / INDEX, sealed(place, files=files, version=version))
    (damage,) = survey(store).damages
    assert damage.what.startswith("is sealed but not an index: ")
    problems, found = offered(store, tmp_path / "copy")
    assert (problems[0].startswith("index.json: is sealed but not an index: "), found) == (True, {})
    assert {path.name for path in tmp_path.iterdir()} == {"store", "copy", "engines"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found_is_never_offered_and_repair_removes_it(
    store: LocalStore, tmp_path: Path, data
):
    place = kept(store, FILES)
    path = data.draw(st.sampled_from([path for path in sorted(place.iterdir()) if path.stat().st_size]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    change(path, bytes(content))
    (damage,) = survey(store).damages
    assert damage.paths == (f"tuning/{SETTINGS}/{path.name}",)
    if data.draw(st.booleans()):
        (done,) = repair(store, [damage])
        assert (done.repaired, done.how) == (True, "removed: the next build learns it again")
        assert survey(store).damages == ()
        problems, files = offered(store, tmp_path / "copy")
        assert problems == []
    else:
        problems, files = offered(store, tmp_path / "copy")
        assert len(problems) == 1
    assert files.items() < FILES.items()
    assert len(files) == (0 if path.name == INDEX else len(FILES) - 1)


@pytest.mark.parametrize("damage", [truncate, link, pipe, folder, Path.unlink])
@pytest.mark.parametrize("name", [INDEX, sha256(FILES["timing.json"])])
def test_what_is_no_file_of_its_kind_any_more_is_named_and_repaired(
    store: LocalStore, place: Path, tmp_path: Path, damage, name: str
):
    damage(place / name)
    damages = survey(store).damages
    assert {one.paths[0].rpartition("/")[2] for one in damages} - {"elsewhere"} == {name}
    assert all(done.repaired for done in repair(store, damages))
    assert survey(store).damages == ()
    problems, files = offered(store, tmp_path / "copy")
    assert (problems, len(files)) == ([], 0 if name == INDEX else len(FILES) - 1)


def test_a_link_in_the_place_of_a_directory_is_not_followed(store: LocalStore, place: Path, tmp_path: Path):
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    (damage,) = survey(store).damages
    assert damage.what == "not a directory"
    assert offered(store, tmp_path / "copy") == (["not a directory"], {})
    kept(store, FILES)
    assert offered(store, tmp_path / "copy") == ([], FILES)
    place.rename(tmp_path / "again")
    place.symlink_to(tmp_path / "elsewhere")
    kept(store, {"b": b"2"})
    assert offered(store, tmp_path / "copy") == ([], {"b": b"2"})
    assert len(list((tmp_path / "elsewhere").iterdir())) == len(FILES) + 1


def test_what_0_1_kept_is_no_damage_and_is_dropped_and_said_once(store: LocalStore, tmp_path: Path):
    store.prepare()
    old = store.root / "tuning" / SETTINGS
    learned(old, {"24/c244.so": b"ELF", "24/c244.cpp": b"int", "linear.json": b"{}", "timing.cache": b"t"})
    assert survey(store).damages == ()
    assert offered(store, tmp_path / "copy") == ([UNSEALED], {})
    assert offered(store, tmp_path / "copy") == ([], {})
    assert [path.name for path in old.iterdir()] == [INDEX]
    kept(store, FILES)
    assert offered(store, tmp_path / "copy") == ([], FILES)


def keep_many(root: Path, number: int) -> int:
    """Keeps entries one after the other, its own and one that all keep."""
    store = LocalStore(root)
    for turn in range(8):
        kept(store, {f"{number}/{turn}": bytes([number, turn]) * 100, "all": bytes([number]) * 10})
    return number


@pytest.mark.slow
def test_builders_at_once_lose_no_entry_and_readers_see_whole_ones(store: LocalStore, tmp_path: Path):
    store.prepare()
    with ProcessPoolExecutor(4) as pool:
        running = [pool.submit(keep_many, store.root, number) for number in range(4)]
        seen = 0
        while not all(one.done() for one in running):
            assert survey(store).damages == ()
            problems, files = offered(store, tmp_path / "copy")
            assert problems == []
            assert len(files) >= seen
            seen = len(files)
        assert sorted(one.result() for one in running) == [0, 1, 2, 3]
    problems, files = offered(store, tmp_path / "copy")
    assert (problems, len(files)) == ([], 4 * 8 + 1)
    assert all(files[f"{n}/{t}"] == bytes([n, t]) * 100 for n in range(4) for t in range(8))


KEEPING = """
import sys
from pathlib import Path
from artifacts.store.local import LocalStore
from tests.artifacts.test_tuning import keep_many
print("ready", flush=True)
for number in range(10, 200):
    keep_many(Path(sys.argv[1]), number)
"""


@pytest.mark.slow
def test_a_builder_killed_at_any_moment_leaves_what_was_kept_before(
    store: LocalStore, place: Path, tmp_path: Path
):
    for turn in range(6):
        argv = [sys.executable, "-c", KEEPING, str(store.root)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as builder:
            present(builder.stdout).readline()
            time.sleep(0.05 + 0.013 * turn)
            builder.send_signal(signal.SIGKILL)
        assert survey(store).damages == ()
        problems, files = offered(store, tmp_path / "copy")
        assert problems == []
        assert files.items() >= FILES.items()
    store.sweep()
    assert list((store.root / "staging").iterdir()) == []


def test_keeping_into_an_index_that_is_damaged_begins_anew(store: LocalStore, place: Path, tmp_path: Path):
    change(place / INDEX, b"{}")
    kept(store, {"b": b"2"})
    assert offered(store, tmp_path / "copy") == ([], {"b": b"2"})
