"""Disks that are full, read-only, or no directories at all; real ones."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.client import Client
from artifacts.errors import StoreUnusable
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from recipes.regular import FileRefused
from tests.disks import fill

PUBLICATION = Publication(
    name="demo/fp8", engine_key="0" * 64, recipe={}, verdict="PASS", facts={}, alias="candidate"
)


def test_a_disk_that_fills_up_while_building_is_said_with_bytes(
    small_disk: Path, key: str, all_files: Callable[[Path], list[str]]
):
    store = open_store(small_disk / "store")
    said = r"disk full: engine [0-9a-f]{12} needs more than [\d,]{7,9} bytes, and [\d,]+ are free at "
    with pytest.raises(StoreUnusable, match=said), store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "weights").write_bytes(bytes(2_000_000))
    assert not store.has(key)
    assert all_files(store.root) == []


def test_a_disk_that_fills_up_while_committing_leaves_nothing(
    small_disk: Path, key: str, all_files: Callable[[Path], list[str]]
):
    store = open_store(small_disk / "store")
    with (
        pytest.raises(StoreUnusable, match="disk full: "),
        store.write(key, kind="k", step={}, host={}) as draft,
    ):
        fill(draft.path / "weights")
    assert not store.has(key)
    assert all_files(store.root) == []
    with store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "weights").write_bytes(bytes(1000))
    assert store.verify(key) == []


def test_a_full_disk_does_not_take_locks_logs_drafts_or_publications(
    small_disk: Path, key: str, all_files: Callable[[Path], list[str]]
):
    store = open_store(small_disk / "store")
    fill(small_disk / "ballast")
    with pytest.raises(StoreUnusable, match="disk full: "), store.lock(key):
        pytest.fail("held a lock it could not write")
    with pytest.raises(StoreUnusable, match="disk full: "):
        store.prepare()
    with pytest.raises(StoreUnusable, match="full"):
        open_registry(store.registry_url).publish(PUBLICATION)
    (small_disk / "ballast").unlink()
    with store.lock(key):  # and nobody was left holding it
        store.prepare()
    assert open_registry(store.registry_url).publish(PUBLICATION) == 1


def test_a_registry_on_a_disk_that_fills_up_stays_as_it_was(small_disk: Path):
    registry = open_registry(small_disk / "registry.db")
    registry.publish(PUBLICATION)
    events = registry.events("demo/fp8")
    fill(small_disk / "ballast")
    large = dataclasses.replace(PUBLICATION, recipe={"text": "x" * 100_000})
    with pytest.raises(
        StoreUnusable, match=r"disk full: the registry sqlite:///.*registry\.db cannot be written"
    ):
        registry.publish(large)
    (small_disk / "ballast").unlink()
    assert [record.number for record in registry.versions("demo/fp8")] == [1]
    assert registry.events("demo/fp8") == events
    assert registry.aliases("demo/fp8") == {"candidate": 1}
    assert registry.publish(large) == 2


def test_an_artifact_larger_than_the_disk_is_refused_before_it_is_built(
    small_disk: Path, key: str, all_files: Callable[[Path], list[str]]
):
    store = open_store(small_disk / "store")
    said = "disk full: engine [0-9a-f]{12} needs 5,000,000 bytes, and "
    with (
        pytest.raises(StoreUnusable, match=said),
        store.write(key, kind="engine", step={}, host={}, needed_bytes=5_000_000),
    ):
        pytest.fail("it was built")
    assert all_files(small_disk) == []


def test_a_full_disk_reported_by_a_library_is_recognised(store: LocalStore, key: str):
    text = f"Error while serializing: I/O error: {os.strerror(28)} (os error 28)"
    with pytest.raises(StoreUnusable, match="disk full: "), store.write(key, kind="k", step={}, host={}):
        raise RuntimeError(text)


def test_other_failures_of_the_block_stay_what_they_are(store: LocalStore, key: str):
    with (
        pytest.raises(PermissionError, match="the user's own file"),
        store.write(key, kind="k", step={}, host={}),
    ):
        raise PermissionError(13, "the user's own file")


def test_a_pull_that_does_not_fit_leaves_nothing(
    small_disk: Path, store: LocalStore, put: Callable[..., None], key: str
):
    put(key, {"weights": bytes(1_200_000)})
    client = Client(str(store.root))
    client.registry.publish(dataclasses.replace(PUBLICATION, engine_key=key))
    with pytest.raises(StoreUnusable, match="disk full: demo/fp8:1 needs 1,200,000 bytes"):
        client.pull("demo/fp8@candidate", small_disk / "engine")
    assert list(small_disk.iterdir()) == []


def unusable(store: LocalStore, key: str) -> list[str]:
    """What every way of writing says."""
    said = []
    for act in (
        store.prepare,
        lambda: store.write(key, kind="k", step={}, host={}).__enter__(),
        lambda: store.lock(key).__enter__(),
        lambda: open_registry(store.registry_url).publish(PUBLICATION),
    ):
        with pytest.raises(StoreUnusable) as caught:
            act()
        said.append(str(caught.value))
    return said


def test_a_store_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileRefused, match="is below a path that is not a directory"):
        open_store(tmp_path / "file" / "store")


def test_a_store_on_a_read_only_disk_is_unusable_but_readable(
    tmp_path: Path,
    small_disk: Path,
    read_only_disk: Callable[[], None],
    put: Callable[..., None],
    key: str,
    other_key: str,
):
    store = open_store(small_disk / "store")
    put(key, {"a": b"1"}, into=store)
    open_registry(store.registry_url).publish(dataclasses.replace(PUBLICATION, engine_key=key))
    read_only_disk()
    for said in unusable(store, other_key):
        assert "read-only" in said or "readonly" in said
    assert store.intact(key)
    assert store.verify(key) == []
    pulled = Client(str(store.root)).pull("demo/fp8", tmp_path / "engine")
    assert (pulled / "a").read_bytes() == b"1"
