"""What the tests of collections share: policies, publications, and processes that begin at one moment."""

import os
import time
from pathlib import Path
from typing import Any

from artifacts.collection import sweep
from artifacts.collection.marking import Plan, Policy
from artifacts.collection.places import LocalPlace
from artifacts.registry.database import open_database
from artifacts.registry.registry import Publication, open_registry
from artifacts.registry.retention import Names
from artifacts.store.local import LocalStore

EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)


def publish(store: LocalStore, number: int, key: str, **values: object) -> None:
    made: dict[str, Any] = {
        "name": "demo",
        "recipe": {"n": number},
        "verdict": "PASS",
        "facts": {"format": "fp8"},
    }
    open_registry(store.registry_url).publish(Publication(engine_key=key, **{**made, **values}))


def names(store: LocalStore) -> Names:
    return Names(open_database(store.registry_url), inside=True)


def collect(store: LocalStore, policy: Policy = EAGER, *, dry_run: bool = False) -> Plan:
    return sweep.collect(LocalPlace(store), names(store), policy, dry_run=dry_run)


def on_disk(root: Path) -> int:
    """Bytes below a directory except registry and reserve; those with several names count once."""
    stats = [
        path.lstat()
        for path in root.rglob("*")
        if path.is_file() and not {"registry.db", "reserve"} & {path.name, path.parent.name}
    ]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


def ready(start, code: str, *args: object):
    child = start("print('ready', flush=True)\n" + code, *args)
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    return child


def go(*children) -> None:
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()


def finished(*children) -> list[str]:
    outputs = [child.communicate(timeout=120) for child in children]
    for child, (_, err) in zip(children, outputs, strict=True):
        assert child.returncode == 0, err
    return [out.strip() for out, _ in outputs]


def published(url: str, number: int) -> bool:
    """Whether the worker with that number has published once."""
    return f"by-{number}" in open_registry(url).aliases("demo")


def age(root: Path) -> None:
    """Make every lease as old as if nobody had renewed it for a year: their holders were killed."""
    for path in root.glob("leases/*"):
        os.utime(path, (time.time() - 4e7,) * 2)
