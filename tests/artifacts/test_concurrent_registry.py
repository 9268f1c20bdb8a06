"""Publishers and promoters at once, and publishers that are killed, on both databases."""

import random
import time
from collections.abc import Callable

from tests.forked import Forked

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


def test_publishing_at_once_loses_and_doubles_nothing(registry_url: str, together: Callable[..., list[str]]):
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


def test_promoting_at_once_has_one_winner_each_time(registry_url: str, together: Callable[..., list[str]]):
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


def test_promoters_rollbacks_and_refusals_at_once_are_all_in_the_log(
    registry_url: str, together: Callable[..., list[str]]
):
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


def test_first_publications_at_once_share_names_and_facts(
    registry_url: str, together: Callable[..., list[str]]
):
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


def test_a_publisher_killed_at_any_moment_publishes_all_or_nothing(
    registry_url: str, start: Callable[..., Forked]
):
    from artifacts.registry.registry import open_registry

    chance = random.Random(3)
    for number in range(40):
        if number >= 4 and open_registry(registry_url).names():
            break  # a busy host may need more rounds until one of them publishes
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
