"""Leases and sweeps: whoever comes second sees the first, and the dead hold nobody up."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore as Directory
from obstore.store import MemoryStore

from artifacts.errors import LeaseLost, StoreBusy, StoreUnusable
from artifacts.store import lease
from artifacts.store.local import LocalStore
from tests.forked import Forked
from tests.present import present

SHORT_S = 1.0
"""Renewed four times within: a busy host may keep a holder waiting for most of it."""


@pytest.fixture(params=["directory", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Directory | MemoryStore:
    return Directory(prefix=tmp_path) if request.param == "directory" else MemoryStore()


def names(objects) -> list[str]:
    return [meta["path"] for batch in obstore.list(objects, "leases") for meta in batch]


def test_a_sweep_sees_what_living_leases_name(objects: Directory | MemoryStore):
    named = lease.hold(objects, ["b", "a", "a"], "build demo", blobs=["f"])
    with named, lease.sweeping(objects, "gc") as (_, claims):
        assert [(one.keys, one.blobs, one.what) for one in claims] == [(("a", "b"), ("f",), "build demo")]
        assert "@" in claims[0].holder
    with lease.sweeping(objects, "gc") as (_, claims):
        assert claims == []
    assert names(objects) == []


def test_a_lease_waits_for_the_sweep_before_it_and_says_so(objects: Directory | MemoryStore):
    told: list[str] = []
    order: list[str] = []

    def sweep() -> None:
        with lease.sweeping(objects, "gc of old engines"):
            begun.set()
            time.sleep(0.2)
            order.append("swept")

    begun = threading.Event()
    thread = threading.Thread(target=sweep)
    thread.start()
    begun.wait()
    with lease.hold(objects, ["a"], "build", waiting=told.append):
        order.append("leased")
    thread.join()
    assert order == ["swept", "leased"]
    assert [said.partition(" by ")[0] for said in told] == ["waiting for gc of old engines"]


def test_waiting_has_an_end(objects: Directory | MemoryStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "WAIT_S", 0.1)
    late = lease.hold(objects, ["a"], "build")
    with lease.sweeping(objects, "gc"), pytest.raises(StoreBusy, match=r"gc by .* takes longer"), late:
        pytest.fail("did not wait")
    assert names(objects) == []


def test_two_sweeps_at_once_spare_the_same(objects: Directory | MemoryStore):
    with (
        lease.hold(objects, ["a"], "build"),
        lease.sweeping(objects, "one") as (_, one),
        lease.sweeping(objects, "two") as (_, two),
    ):
        assert [claim.keys for claim in one] == [claim.keys for claim in two] == [("a",)]


def test_a_renewed_lease_outlives_its_time_and_an_abandoned_one_does_not(objects: Directory | MemoryStore):
    with lease.hold(objects, ["kept"], "build", ttl_s=SHORT_S):
        abandoned = lease.Lease(
            objects, "x", {"keys": ["gone"], "blobs": [], "what": "w", "holder": "h", "ttl_s": SHORT_S}
        )
        abandoned.renew()
        time.sleep(3 * SHORT_S)
        with lease.sweeping(objects, "gc") as (_, claims):
            assert [claim.keys for claim in claims] == [("kept",)]
        assert "leases/x.json" not in names(objects)


def test_a_holder_that_was_stopped_learns_that_it_lost_its_lease_even_if_it_renews_later(
    objects: Directory | MemoryStore,
):
    document = {"keys": [], "blobs": [], "what": "w", "holder": "h", "ttl_s": SHORT_S}
    held = lease.Lease(objects, "x", document)
    held.renew()
    held.require()
    time.sleep(1.5 * SHORT_S)
    held.renew()
    with pytest.raises(LeaseLost, match=rf"not renewed within {SHORT_S:g} s"):
        held.require()


def test_a_lease_that_cannot_be_read_stops_a_sweep(objects: Directory | MemoryStore):
    obstore.put(objects, "leases/other.json", json.dumps({"version": 9}).encode())
    refused = pytest.raises(StoreUnusable, match=r"leases/other\.json is not a lease that this version reads")
    with refused, lease.sweeping(objects, "gc"):
        pytest.fail("swept")
    assert names(objects) == ["leases/other.json"]


def test_a_failing_block_gives_the_lease_back(objects: Directory | MemoryStore):
    with pytest.raises(RuntimeError, match="boom"), lease.hold(objects, ["a"], "build"):
        raise RuntimeError("boom")
    assert names(objects) == []


HOLDER = """
import sys, time
from artifacts.store import lease
from artifacts.store.opening import open_store
with lease.hold(open_store(sys.argv[1]).objects, [sys.argv[2]], "build", ttl_s=float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lease_of_a_killed_process_dies_and_that_of_a_working_one_does_not(
    store: LocalStore, key: str, other_key: str, start: Callable[..., Forked]
):
    killed, works = start(HOLDER, store.root, key, SHORT_S), start(HOLDER, store.root, other_key, SHORT_S)
    assert [child.stdout.readline() for child in (killed, works)] == ["held\n"] * 2
    os.kill(present(killed.pid), signal.SIGKILL)
    time.sleep(3 * SHORT_S)
    with lease.sweeping(store.objects, "gc") as (_, claims):
        assert [claim.keys for claim in claims] == [(other_key,)]


def test_a_lease_of_the_store_marks_its_artifacts_as_used(
    store: LocalStore, put: Callable[..., None], key: str, other_key: str
):
    put(key, {"a": b"a"})
    os.utime(store.path(key), (1, 1))
    with store.lease([key, other_key], "build"):
        assert time.time() - store.path(key).stat().st_mtime < 60
        assert not store.path(other_key).exists()


DOCUMENT = {"keys": ["a"], "blobs": [], "what": "a build", "holder": "u@h", "ttl_s": 60}
ABSURD = {
    "what is no JSON": b"\xff\x00{",
    "nothing": b"",
    "nesting": b"[" * 100_000,
    "a number of 5,000 digits": b'{"ttl_s": ' + b"9" * 5000 + b"}",
    "another document": b'"a text"',
    "keys that are no list": json.dumps({**DOCUMENT, "keys": "abc"}).encode(),
    "keys that are no texts": json.dumps({**DOCUMENT, "keys": [["a"]]}).encode(),
    "a holder that is no text": json.dumps({**DOCUMENT, "holder": {}}).encode(),
    **{
        f"a time of {value}": json.dumps({**DOCUMENT, "ttl_s": value}).encode()
        for value in (-1, 0, float("nan"), True, "60", None, [60])
    },
}


def place(objects: Directory, name: str, text: bytes, age_s: float = 0.0) -> None:
    """An object in the folder of leases of a directory, written so long ago."""
    obstore.put(objects, f"leases/{name}", text)
    then = time.time() - age_s
    os.utime(present(objects.prefix) / "leases" / name, (then, then))


@pytest.mark.parametrize("kind", ABSURD)
def test_a_lease_that_makes_no_sense_stops_a_sweep_by_name_until_it_ends_by_itself(tmp_path: Path, kind: str):
    objects = Directory(prefix=tmp_path)
    place(objects, "absurd.json", ABSURD[kind], age_s=3600)
    said = r"leases/absurd\.json is not a lease that this version reads \(.*\).* expires in 60 minutes: wait"
    with pytest.raises(StoreUnusable, match=said), lease.sweeping(objects, "gc"):
        pytest.fail("swept")
    with lease.hold(objects, ["a"], "build"):  # nobody but sweeps is held up
        pass
    place(objects, "absurd.json", ABSURD[kind], age_s=2 * 3600 + 60)
    with lease.sweeping(objects, "gc") as (_, found):
        assert found == []
    assert names(objects) == []


@pytest.mark.parametrize("kind", ABSURD)
def test_a_marker_that_makes_no_sense_holds_builds_up_for_a_bounded_time_and_sweeps_not_at_all(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "WAIT_S", 0.1)
    told: list[str] = []
    objects = Directory(prefix=tmp_path)
    place(objects, "sweep-absurd.json", ABSURD[kind])
    late = lease.hold(objects, ["a"], "build", waiting=told.append)
    with (
        pytest.raises(StoreBusy, match=r"what leases/sweep-absurd\.json stands for, which cannot be read"),
        late,
    ):
        pytest.fail("did not wait")
    assert len(told) == 1
    assert told[0].endswith("by somebody, at most 0.00166667 minutes")
    with lease.sweeping(objects, "gc") as (_, found):
        assert found == []
    place(objects, "sweep-absurd.json", ABSURD[kind], age_s=2 * 3600 + 60)
    with lease.hold(objects, ["a"], "build"):
        pass


def test_a_promise_of_1e300_seconds_is_believed_for_an_hour(tmp_path: Path):
    objects = Directory(prefix=tmp_path)
    for name, ttl_s in (("a", 1e300), ("sweep-b", 1e300), ("c", 10**400), ("d", float("inf"))):
        place(objects, f"{name}.json", json.dumps({**DOCUMENT, "ttl_s": ttl_s}).encode(), age_s=2 * 3600 + 60)
    with lease.hold(objects, ["a"], "build"), lease.sweeping(objects, "gc") as (_, found):
        assert [one.what for one in found] == ["build"]
    place(objects, "a.json", json.dumps({**DOCUMENT, "ttl_s": 1e300}).encode(), age_s=3600)
    with lease.sweeping(objects, "gc") as (_, found):
        assert [one.what for one in found] == ["a build"]


def test_what_is_dated_in_the_future_counts_from_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The clock was set forward, the holders died, the clock was set back."""
    monkeypatch.setattr(lease, "WAIT_S", 0.1)
    objects, year_s = Directory(prefix=tmp_path), 4e7
    text = json.dumps({**DOCUMENT, "ttl_s": 0.2}).encode()
    place(objects, "a.json", text, age_s=-year_s)
    place(objects, "sweep-b.json", text, age_s=-year_s)
    with lease.sweeping(objects, "gc") as (_, found):
        assert [one.keys for one in found] == [("a",)]
    time.sleep(0.5)
    with lease.hold(objects, ["a"], "build"):
        pass
    with lease.sweeping(objects, "gc") as (_, found):
        assert found == []
    assert names(objects) == []


def test_a_lease_of_1970_is_dead(tmp_path: Path):
    objects = Directory(prefix=tmp_path)
    place(objects, "a.json", json.dumps(DOCUMENT).encode(), age_s=time.time())
    with lease.sweeping(objects, "gc") as (_, found):
        assert found == []


def test_a_million_keys_and_a_gigabyte_are_named_and_a_pipe_is_not_read(tmp_path: Path):
    objects = Directory(prefix=tmp_path)
    place(objects, "x.json", json.dumps({**DOCUMENT, "keys": ["k" * 64] * 1_000_000}).encode())
    with pytest.raises(StoreUnusable, match=r"leases/x\.json .*descriptions of artifacts have at most"):
        lease.sweeping(objects, "gc").__enter__()
    with (tmp_path / "leases" / "x.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(StoreUnusable, match=r"leases/x\.json has 1,073,741,824 bytes"):
        lease.sweeping(objects, "gc").__enter__()
    (tmp_path / "leases" / "x.json").unlink()
    os.mkfifo(tmp_path / "leases" / "x.json")
    with lease.sweeping(objects, "gc") as (_, found):  # which reads no pipe
        assert found == []
    assert names(objects) == []


@pytest.mark.parametrize("name", ["a b%2F?.json", "ü[*].json", "..json", "-rf", "new\nline.json"])
def test_an_object_with_an_odd_name_is_named(tmp_path: Path, name: str):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / name).write_text("{}")
    with pytest.raises(StoreUnusable) as caught, lease.sweeping(Directory(prefix=tmp_path), "gc"):
        pytest.fail("swept")
    assert name.partition("\n")[0].partition("%")[0] in str(caught.value)


def test_words_of_a_lease_do_nothing_to_a_terminal(tmp_path: Path):
    objects = Directory(prefix=tmp_path)
    odd = {**DOCUMENT, "what": "\x1b[2J" + "w" * 10_000, "holder": "a\nb"}
    place(objects, "a.json", json.dumps(odd).encode())
    with lease.sweeping(objects, "gc") as (_, found):
        assert (found[0].what[:5], len(found[0].what), found[0].holder) == ("?[2Jw", 200, "a?b")


def test_a_holder_whose_lease_was_removed_learns_that_it_lost_it(objects: Directory | MemoryStore):
    """A sweep on a machine whose clock runs ahead by minutes thinks the holder dead."""
    with lease.hold(objects, ["a"], "build") as held:
        held.require()
        obstore.delete(objects, held.path)
        held.renew()
        with pytest.raises(LeaseLost, match="or was removed"):
            held.require()
    assert names(objects) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe{", "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b"{}", "it has no keys"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_lease_is_said_in_words(tmp_path: Path, text: bytes, said: str):
    objects = Directory(prefix=tmp_path)
    place(objects, "odd.json", text)
    with (
        pytest.raises(StoreUnusable, match=rf"not a lease that this version reads \({said}\), so"),
        lease.sweeping(objects, "gc"),
    ):
        pytest.fail("swept")
