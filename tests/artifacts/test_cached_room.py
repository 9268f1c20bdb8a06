"""How much a cache keeps: what it evicts, what stays, and how its bound is written."""

import os
import random
import time
from collections.abc import Callable

import obstore
import pytest

from artifacts import digest
from artifacts.collection.marking import Policy
from artifacts.collection.places import LocalPlace
from artifacts.collection.sweep import tidy
from artifacts.errors import StoreUnknown
from artifacts.store.cached import CachedStore
from artifacts.store.opening import parse_size
from artifacts.store.remote import remote_layout
from tests.artifacts.caches import commit


def keys(count: int) -> list[str]:
    return [digest.of_json(["many", number]) for number in range(count)]


def fill(store: CachedStore, count: int) -> list[str]:
    """Commits artifacts of 100 kB each, oldest use first."""
    made = keys(count)
    for age, key in enumerate(reversed(made)):
        commit(store, key, {"a": random.Random(key).randbytes(100_000)})
        then = time.time() - 100 * (age + 1)
        os.utime(store.path(key), (then, then))
    return made


def test_the_cache_evicts_what_was_not_used_for_longest(machine: Callable[..., CachedStore]):
    here = machine("here", idle_s=50)
    made = fill(here, 5)
    here.directory(made[0])
    here.cache.max_bytes = here.cache.held_bytes() - 150_000
    assert here.cache.shrink() == [made[1], made[2]]
    assert here.cache.held_bytes() <= here.cache.max_bytes
    assert here.local.keys() == sorted([made[0], made[3], made[4]])
    assert here.keys() == sorted(made)
    assert here.cache.shrink() == []
    assert here.verify(made[1]) == []
    assert (here.directory(made[1]) / "a").stat().st_size == 100_000


def test_what_is_not_pushed_is_leased_or_was_used_just_now_is_not_evicted(
    machine: Callable[..., CachedStore], caplog: pytest.LogCaptureFixture
):
    here = machine("here", idle_s=50, max_bytes=None)
    made = fill(here, 4)
    obstore.delete(here.remote.objects, remote_layout.manifest_path(made[0]))
    here.directory(made[1])
    here.cache.max_bytes = 0
    with machine("here").lease([made[2]], "a test"):
        then = time.time() - 100
        os.utime(here.path(made[2]), (then, then))
        assert here.cache.shrink() == [made[3]]
    assert here.local.keys() == sorted(made[:3])
    assert "over its bound of 0; the rest is in use, or not in s3://" in caplog.text


def test_a_commit_makes_room_for_itself(machine: Callable[..., CachedStore]):
    here = machine("here", idle_s=50, max_bytes=250_000)
    made = fill(here, 4)
    assert here.cache.held_bytes() <= 250_000
    assert set(here.local.keys()) < set(made)
    assert here.keys() == sorted(made)


@pytest.mark.parametrize(
    ("text", "size"),
    [("200GB", 200 * 10**9), ("1.5 TiB", 3 << 39), ("5000", 5000), ("1mb", 10**6), ("7B", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1 PB", "1e9", "12 34"])
def test_other_sizes_are_refused(text: str):
    with pytest.raises(StoreUnknown, match=r"is not a size; write e\.g\. 200GB"):
        parse_size(text)


def test_files_fetched_alone_are_evicted_too(machine: Callable[..., CachedStore]):
    here, there = machine("here"), machine("there", idle_s=50)
    for number, one in enumerate(fill(here, 3)):
        there.file(one, "a")
        then = time.time() - 1000 + number
        os.utime(there.root / "files" / one, (then, then))
    assert there.cache.held_bytes() > 300_000
    there.cache.max_bytes = 150_000
    assert len(there.cache.shrink()) == 2
    assert there.cache.held_bytes() <= 150_000
    assert there.file(keys(3)[0], "a").stat().st_size == 100_000


def test_litter_of_a_cache_goes_and_what_a_lease_names_stays(
    machine: Callable[..., CachedStore], key: str, other_key: str
):
    here, there = machine("here"), machine("there")
    for one in (key, other_key):
        commit(here, one)
        there.file(one, "engine.json")
    for name in (f"partial/{key}.fetch", f"partial/{other_key}.file", ".import.enginery.x.1"):
        (there.root / name).mkdir(parents=True)
    eager = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)
    with there.reading([key], "a build"):
        plan = tidy(LocalPlace(there), eager)
    gone = {f"files/{other_key}", f"partial/{other_key}.file", ".import.enginery.x.1"}
    assert {one.place for one in plan.litter} == gone
    assert (there.root / "files" / key / "engine.json").exists()
    assert there.file(other_key, "engine.json").read_bytes() == b"{}"
