"""A store remembers which registries name its artifacts, and gc asks all of them or none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.collection import registries, sweep
from artifacts.collection.marking import Policy
from artifacts.collection.places import LocalPlace
from artifacts.errors import StoreUnusable
from artifacts.registry.database import open_database
from artifacts.registry.registry import Publication, open_registry
from artifacts.registry.retention import Names
from artifacts.store.local import LocalStore

EAGER = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql+psycopg://me:secret@db:5432/engines?sslmode=require", "postgresql://db:5432/engines"),
        ("postgresql://you@db:5432/engines", "postgresql://db:5432/engines"),
        ("sqlite:////data/registry.db", "sqlite:////data/registry.db"),
    ],
)
def test_a_registry_is_one_place_whoever_uses_it(url: str, place: str):
    assert registries.place_of(url) == place


def test_what_another_registry_names_stays_and_one_that_is_not_asked_stops_gc(
    store: LocalStore,
    put: Callable[..., None],
    key: str,
    other_key: str,
    tmp_path: Path,
    all_files: Callable[[Path], list[str]],
):
    for one, files in ((key, {"a": b"a"}), (other_key, {"a": b"b"}), ("f" * 64, {"a": b"c"})):
        put(one, files)
    other = open_registry(tmp_path / "other.db")
    for _ in range(2):
        registries.remember(store, other.url)
        registries.remember(store, store.registry_url)
    assert len(list((store.root / "registries").iterdir())) == 1
    other.publish(
        Publication(
            name="demo", engine_key=key, recipe={}, verdict="PASS", facts={}, lineage={"source": other_key}
        )
    )
    names = Names(open_database(store.registry_url), inside=True)
    with pytest.raises(
        StoreUnusable, match=r"registry sqlite:.*other\.db also names artifacts of this store"
    ):
        sweep.collect(LocalPlace(store), names, EAGER)
    assert len(store.keys()) == 3
    plan = sweep.collect(LocalPlace(store), names, EAGER, also=[open_database(other.url)])
    assert store.keys() == sorted([key, other_key])
    assert plan.kept == {"leased": 2}


def test_no_password_is_written_into_the_store(store: LocalStore, all_files: Callable[[Path], list[str]]):
    registries.remember(store, "postgresql://me:hunter2@db/engines")
    (path,) = (store.root / "registries").iterdir()
    assert "hunter2" not in path.read_text()
