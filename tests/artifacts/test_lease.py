"""Leases and sweeps: whoever comes second sees the first, and the dead hold nobody up."""

import json
import os
import signal
import threading
import time

import obstore
import pytest
from obstore.store import LocalStore as Directory
from obstore.store import MemoryStore

from artifacts.errors import LeaseLost, StoreBusy, StoreUnusable
from artifacts.store import lease

SHORT_S = 0.2


@pytest.fixture(params=["directory", "memory"])
def objects(request, tmp_path):
    return Directory(prefix=tmp_path) if request.param == "directory" else MemoryStore()


def names(objects) -> list[str]:
    return [meta["path"] for batch in obstore.list(objects, "leases") for meta in batch]


def test_a_sweep_sees_what_living_leases_name(objects):
    named = lease.hold(objects, ["b", "a", "a"], "build demo", blobs=["f"])
    with named, lease.sweeping(objects, "gc") as (_, claims):
        assert [(one.keys, one.blobs, one.what) for one in claims] == [(("a", "b"), ("f",), "build demo")]
        assert "@" in claims[0].holder
    with lease.sweeping(objects, "gc") as (_, claims):
        assert claims == []
    assert names(objects) == []


def test_a_lease_waits_for_the_sweep_before_it_and_says_so(objects):
    told, order = [], []

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


def test_waiting_has_an_end(objects, monkeypatch):
    monkeypatch.setattr(lease, "WAIT_S", 0.1)
    late = lease.hold(objects, ["a"], "build")
    with lease.sweeping(objects, "gc"), pytest.raises(StoreBusy, match=r"gc by .* takes longer"), late:
        pytest.fail("did not wait")
    assert names(objects) == []


def test_two_sweeps_at_once_spare_the_same(objects):
    with (
        lease.hold(objects, ["a"], "build"),
        lease.sweeping(objects, "one") as (_, one),
        lease.sweeping(objects, "two") as (_, two),
    ):
        assert [claim.keys for claim in one] == [claim.keys for claim in two] == [("a",)]


def test_a_renewed_lease_outlives_its_time_and_an_abandoned_one_does_not(objects):
    with lease.hold(objects, ["kept"], "build", ttl_s=SHORT_S):
        abandoned = lease.Lease(
            objects, "x", {"keys": ["gone"], "blobs": [], "what": "w", "holder": "h", "ttl_s": SHORT_S}
        )
        abandoned.renew()
        time.sleep(3 * SHORT_S)
        with lease.sweeping(objects, "gc") as (_, claims):
            assert [claim.keys for claim in claims] == [("kept",)]
        assert "leases/x.json" not in names(objects)


def test_a_holder_that_was_stopped_learns_that_it_lost_its_lease_even_if_it_renews_later(objects):
    document = {"keys": [], "blobs": [], "what": "w", "holder": "h", "ttl_s": SHORT_S}
    held = lease.Lease(objects, "x", document)
    held.renew()
    held.require()
    time.sleep(1.5 * SHORT_S)
    held.renew()
    with pytest.raises(LeaseLost, match=r"not renewed within 0\.2 s"):
        held.require()


def test_a_lease_that_cannot_be_read_stops_a_sweep(objects):
    obstore.put(objects, "leases/other.json", json.dumps({"version": 9}).encode())
    refused = pytest.raises(StoreUnusable, match=r"leases/other\.json is no lease that this version reads")
    with refused, lease.sweeping(objects, "gc"):
        pytest.fail("swept")
    assert names(objects) == ["leases/other.json"]


def test_a_failing_block_gives_the_lease_back(objects):
    with pytest.raises(RuntimeError, match="boom"), lease.hold(objects, ["a"], "build"):
        raise RuntimeError("boom")
    assert names(objects) == []


HOLDER = """
import sys, time
from artifacts.store import lease
from artifacts.store.local import open_store
with lease.hold(open_store(sys.argv[1]).objects, [sys.argv[2]], "build", ttl_s=float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lease_of_a_killed_process_dies_and_that_of_a_working_one_does_not(store, key, other_key, start):
    killed, works = start(HOLDER, store.root, key, 0.3), start(HOLDER, store.root, other_key, 0.3)
    assert [child.stdout.readline() for child in (killed, works)] == ["held\n"] * 2
    os.kill(killed.pid, signal.SIGKILL)
    time.sleep(0.7)
    with lease.sweeping(store.objects, "gc") as (_, claims):
        assert [claim.keys for claim in claims] == [(other_key,)]


def test_a_lease_of_the_store_marks_its_artifacts_as_used(store, put, key, other_key):
    put(key, {"a": b"a"})
    os.utime(store.path(key), (1, 1))
    with store.lease([key, other_key], "build"):
        assert time.time() - store.path(key).stat().st_mtime < 60
        assert not store.path(other_key).exists()
