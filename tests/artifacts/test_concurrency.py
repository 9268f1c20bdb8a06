"""Several processes at once, and processes that are killed."""

import random
import time

import pytest

WRITER = """
import sys, time
from artifacts.store.local import open_store
store, key, number = open_store(sys.argv[1]), sys.argv[2], sys.argv[3]
input()
for _ in range(5):
    with store.write(key, kind="engine", step={}, host={}) as draft:
        (draft.path / "by").write_text(number)
        (draft.path / "weights").write_bytes(number.encode() * 100_000)
print(store.verify(key), len((store.path(key) / "weights").read_bytes()))
"""


def test_many_writers_of_one_key_make_one_artifact(store, key, together):
    assert together(WRITER, 4, store.root, key) == ["[] 100000"] * 4
    winner = (store.path(key) / "by").read_bytes()
    assert (store.path(key) / "weights").read_bytes() == winner * 100_000
    assert store.keys() == [key]
    assert list((store.root / "staging").iterdir()) == []
    assert not (store.root / "quarantine").exists()


BUILDER = """
import sys, time, pathlib
from artifacts.store.local import open_store
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


def test_concurrent_runs_build_each_artifact_once(store, tmp_path, together):
    keys = [f"{n:064x}" for n in range(8)]
    built = tmp_path / "built"
    assert together(BUILDER, 4, store.root, " ".join(keys), built) == ["True"] * 4
    assert built.read_text().split() == keys
    assert list((store.root / "locks").iterdir()) == []


HOLDER = """
import sys, time
from artifacts.store.local import open_store
with open_store(sys.argv[1]).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def test_who_waits_is_told_for_whom_and_a_killed_holder_frees_the_lock(store, key, start):
    holder = start(HOLDER, store.root, key, 60)
    assert holder.stdout.readline() == "held\n"
    told = []

    def waiting(pid: int) -> None:
        told.append(pid)
        holder.kill()

    with store.lock(key, waiting=waiting):
        assert told == [holder.pid]


def test_locks_of_different_keys_are_independent(store, key, other_key):
    with store.lock(key), store.lock(other_key, waiting=lambda pid: pytest.fail("waited")):
        assert len(list((store.root / "locks").iterdir())) == 2


def test_the_lock_ends_with_a_failed_block(store, key):
    with pytest.raises(RuntimeError, match="boom"), store.lock(key):
        raise RuntimeError("boom")
    with store.lock(key, waiting=lambda pid: pytest.fail("waited")):
        pass


VICTIM = """
import sys
from artifacts.store.local import open_store
store, key = open_store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
input()
with store.lock(key), store.write(key, kind="engine", step={}, host={}) as draft:
    for n in range(40):
        (draft.path / f"{n}").write_bytes(bytes([n]) * 200_000)
print("done", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_no_object_and_only_litter(store, start, all_files):
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
from artifacts.store.local import open_store
with open_store(sys.argv[1]).write(sys.argv[2], kind="engine", step={}, host={}) as draft:
    (draft.path / "half").write_bytes(b"?")
    print("in", flush=True)
    input()
"""


def test_sweeping_takes_the_litter_of_the_dead_and_leaves_the_living(store, key, other_key, start):
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


def test_sweeping_leaves_what_it_did_not_make(store, key):
    foreign = store.root / "staging" / "notes"
    foreign.mkdir(parents=True)
    (foreign / "keep.txt").write_text("mine")
    (store.root / "staging" / "file").write_text("mine")
    assert store.sweep() == []
    assert (foreign / "keep.txt").read_text() == "mine"


def test_sweeping_while_others_write_disturbs_nobody(store, together):
    code = """
import sys
from artifacts.store.local import open_store
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


PUBLISHER = """
import sys
from artifacts.registry.registry import Metric, Publication, open_registry
from artifacts.errors import AliasMoved
url, number = sys.argv[1], int(sys.argv[2])
input()
registry = open_registry(url)
published = [
    registry.publish(Publication(
        name="demo/fp8", alias="candidate", engine_key=f"{number * 100 + n:064x}", recipe={"n": n},
        verdict="PASS", facts={"format": "fp8"}, metrics=[Metric("kl", 0.01), Metric("number", number)]))
    for n in range(6)
]
wins = 0
for turn in range(6):
    try:
        registry.promote("demo/fp8", f"turn{turn}", to=1 + turn, expect=None)
        wins += 1
    except AliasMoved:
        pass
print(published, wins, sep=";")
"""


def test_publishing_at_once_loses_and_doubles_nothing(registry_url, together):
    from artifacts.registry.registry import open_registry

    url = registry_url
    results = [line.split(";") for line in together(PUBLISHER, 4, url)]
    published = sorted(number for numbers, _ in results for number in eval(numbers))
    assert published == list(range(1, 25))
    assert sum(int(wins) for _, wins in results) == 6
    registry = open_registry(url)
    versions = registry.versions("demo/fp8")
    assert [record.number for record in versions] == published
    assert len({record.engine_key for record in versions}) == 24
    assert all([metric.name for metric in record.metrics] == ["kl", "number"] for record in versions)
    assert registry.aliases("demo/fp8") == {"candidate": 24, **{f"turn{n}": n + 1 for n in range(6)}}
    events = registry.events("demo/fp8")
    assert [event.seq for event in events] == list(range(1, 55))
    assert [event.detail["number"] for event in events if event.kind == "published"] == published
    moves = [event.detail for event in events if event.detail.get("alias") == "candidate"]
    assert [(move["was"], move["now"]) for move in moves] == [(n - 1 or None, n) for n in published]


SWAPPER = """
import sys
from artifacts.errors import AliasMoved
from artifacts.registry.registry import open_registry
registry, number = open_registry(sys.argv[1]), int(sys.argv[2])
input()
won = []
for at in range(1, 11):
    try:
        registry.promote("demo/fp8", "prod", to=at + 1, expect=at)
        won.append(at)
    except AliasMoved:
        pass
print(*won)
"""


def test_promoting_at_once_has_one_winner_each_time(registry_url, together):
    from artifacts.registry.registry import Publication, open_registry

    registry = open_registry(registry_url)
    for n in range(11):
        registry.publish(
            Publication(name="demo/fp8", engine_key=f"{n:064x}", recipe={}, verdict="PASS", facts={})
        )
    registry.promote("demo/fp8", "prod", to=1, expect=None)
    won = sorted(int(at) for line in together(SWAPPER, 4, registry_url) for at in line.split())
    reached = registry.aliases("demo/fp8")["prod"]
    assert won == list(range(1, reached))  # every step was taken once, by one of them
    assert reached > 1
    moves = registry.history("demo/fp8", "prod")
    assert [(move.was, move.now) for move in moves] == [(n - 1 or None, n) for n in range(1, reached + 1)]


MIXED = """
import sys
from datetime import UTC, datetime, timedelta
from artifacts.errors import AliasMoved, NotFound, PolicyRefused
from artifacts.registry.registry import Metric, Publication, Request, open_registry
registry, number = open_registry(sys.argv[1]), int(sys.argv[2])
input()
told = {"moved": 0, "refused": 0, "lost": 0}
for n in range(8):
    slow = (n + number) % 2
    version = registry.publish(Publication(
        name="demo/fp8", engine_key=f"{number * 100 + n:064x}", recipe={"n": n}, verdict="PASS",
        facts={"by": number % 2}, metrics=[Metric("tokens_per_s", 100.0 if slow else 300.0)]))
    at = registry.aliases("demo/fp8").get("prod")
    try:
        if n == 6 and at:
            registry.rollback("demo/fp8", "prod", expect=at)
        else:
            registry.promote("demo/fp8", "prod", to=version, expect=at)
        told["moved"] += 1
    except PolicyRefused:
        told["refused"] += 1
    except (AliasMoved, NotFound):
        told["lost"] += 1
print(*told.values())
"""


def test_promoters_rollbacks_and_refusals_at_once_are_all_in_the_log(registry_url, together):
    from artifacts.registry.registry import open_registry, parse_policy

    registry = open_registry(registry_url)
    registry.set_policy("prod", parse_policy({"metrics": {"tokens_per_s": {"min": 200}}}))
    told = [[int(count) for count in line.split()] for line in together(MIXED, 4, registry_url)]
    moved, refused, lost = (sum(column) for column in zip(*told, strict=True))
    assert moved + refused + lost == 32
    assert moved > 0
    assert refused > 0
    events = registry.events("demo/fp8")
    assert sum(event.kind == "refused" for event in events) == refused
    moves = registry.history("demo/fp8", "prod")
    assert len(moves) == moved
    assert [move.was for move in moves] == [None, *(move.now for move in moves[:-1])]
    assert registry.aliases("demo/fp8") == {"prod": moves[-1].now}
    speeds = {record.number: record.metric("tokens_per_s") for record in registry.versions("demo/fp8")}
    assert sorted(speeds) == list(range(1, 33))
    assert {speeds[move.now] for move in moves} == {300.0}


NEWCOMER = """
import sys
from artifacts.errors import NameRefused
from artifacts.registry.registry import Publication, open_registry
registry, number = open_registry(sys.argv[1]), int(sys.argv[2])
input()
names = ["demo/new", "demo/NEW", f"demo/own{number}"]
for name in names:
    try:
        print(name, registry.publish(Publication(
            name=name, engine_key=f"{number:064x}", recipe={}, verdict="PASS", facts={"same": True})), end=" ")
    except NameRefused:
        print(name, "refused", end=" ")
"""


def test_first_publications_at_once_share_names_and_facts(registry_url, together):
    from artifacts.registry.registry import open_registry

    lines = [line.split() for line in together(NEWCOMER, 4, registry_url)]
    said = [dict(zip(line[::2], line[1::2], strict=True)) for line in lines]
    winner, loser = sorted(("demo/new", "demo/NEW"), key=lambda name: said[0][name] == "refused")
    assert sorted(one[winner] for one in said) == ["1", "2", "3", "4"]
    assert {one[loser] for one in said} == {"refused"}
    assert open_registry(registry_url).names() == sorted([winner, *(f"demo/own{n}" for n in range(4))])


KILLED_PUBLISHER = """
import sys
from artifacts.registry.registry import Metric, Publication, open_registry
registry = open_registry(sys.argv[1])
print("ready", flush=True)
for n in range(100_000):
    registry.publish(Publication(
        name="demo/fp8", alias="candidate", engine_key=f"{n:064x}", recipe={}, verdict="PASS", facts={},
        metrics=[Metric("a", 1.0), Metric("b", 2.0)]))
"""


def test_a_publisher_killed_at_any_moment_publishes_all_or_nothing(registry_url, start):
    from artifacts.registry.registry import open_registry

    chance = random.Random(3)
    for _ in range(4):
        child = start(KILLED_PUBLISHER, registry_url)
        child.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.3))
        child.kill()
        child.wait()
        registry = open_registry(registry_url)
        if not registry.names():
            continue
        versions = registry.versions("demo/fp8")
        assert [record.number for record in versions] == list(range(1, len(versions) + 1))
        assert all(len(record.metrics) == 2 for record in versions)
        assert registry.aliases("demo/fp8") == {"candidate": len(versions)}
        assert len(registry.events("demo/fp8")) == 2 * len(versions)
    assert registry.names() == ["demo/fp8"]
