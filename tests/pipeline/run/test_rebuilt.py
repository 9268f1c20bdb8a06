"""An engine whose builds are not bit-identical, as TensorRT's are not: built, collected and built again."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artifacts.client import Client
from artifacts.collection.marking import Policy
from artifacts.collection.places import place_of
from artifacts.collection.sweep import collect
from artifacts.errors import NotFound
from artifacts.registry.database import open_database
from artifacts.registry.retention import Names
from artifacts.store.bring import bring
from artifacts.store.repair import PulledSource
from pipeline.process.host import probe
from pipeline.step.judged import find_judgement
from pipeline.step.realize import Site
from recipes.schema import Recipe
from tests.callables import Cli
from tests.pipeline.cli.test_remote_store import RECIPE, Heard
from tests.pipeline.toy_steps import CHILD, run, toy_plan

pytestmark = pytest.mark.slow

NOTHING_LASTS = Policy(keep_last=0, keep_pulled_days=0, min_age_days=0, litter_days=0, lineage=False)


class Workshop:
    """A store, its registry, and runs of one recipe."""

    def __init__(self, store: Path) -> None:
        self.client = Client(store)

    def run(self, options: dict[str, Any], **fields) -> tuple[int, list[str]]:
        """Number of the version that a run comes to, and which steps it built."""
        heard, recipe = Heard(), {**RECIPE, "engine": {"options": options}, **fields}
        plan = toy_plan(Recipe.model_validate(recipe), Path("recipe.yaml"))
        site = Site(store=self.client.store, host=probe(), child=CHILD)
        return run(plan, site, self.client.registry, heard).version, heard.built

    def collect(self) -> list[str]:
        """What gc takes of the versions without an alias."""
        store = self.client.store
        names = Names(open_database(self.client.registry.database.url), inside=True)
        return [one.reference for one in collect(place_of(store), names, NOTHING_LASTS).collected]

    def lose_engine(self) -> None:
        """Sets the engine aside, as a run does that finds it damaged."""
        self.client.store.discard(self.client.resolve("toy").engine_key)

    def unpoint(self) -> None:
        """Takes the alias from every version, so that gc may have them."""
        with self.client.registry.database.writing() as db:
            db.exec_driver_sql("DELETE FROM alias")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run leaves: `equal` of a builder that is bit-identical but for its timings, `nonce` of another."""
    root = tmp_path_factory.mktemp("runs")
    for name, options in (("equal", {}), ("nonce", {"nonce": True})):
        assert Workshop(root / name).run(options)[0] == 1
    return root


@pytest.fixture
def shop(runs: Path, tmp_path: Path) -> Workshop:
    """The store of the builder that is never the same, after its run."""
    return Workshop(shutil.copytree(runs / "nonce", tmp_path / "store"))


@pytest.fixture
def equal(runs: Path, tmp_path: Path) -> Workshop:
    """The store of the builder whose engines are equal, after its run."""
    return Workshop(shutil.copytree(runs / "equal", tmp_path / "store"))


def engine(directory: Path) -> str:
    return (directory / "rank0.engine").read_text()


def test_a_build_with_other_bytes_is_a_version_of_its_own_that_is_scored_timed_and_pulled(
    shop: Workshop, tmp_path: Path
):
    first = shop.client.pull("toy:1", tmp_path / "one")
    shop.lose_engine()
    version, built = shop.run({"nonce": True})
    assert version == 2
    assert built == ["engine", "measurement", "evaluation"]  # what was scored before was another engine
    second = shop.client.pull("toy:2", tmp_path / "two")
    assert engine(first) != engine(second)
    assert shop.client.verify("toy:2") == shop.client.verify(first) == []
    assert shop.client.aliases("toy") == {"candidate": 2}
    assert shop.run({"nonce": True}) == (2, [])

    for asked in (shop.client.verify, lambda name: shop.client.pull(name, tmp_path / "none")):
        with pytest.raises(NotFound, match=r"toy:1: .* another build of that key, .*, which is toy:2; bring"):
            asked("toy:1")


def test_what_a_store_lost_is_brought_back_beside_the_rebuild(shop: Workshop, tmp_path: Path, cli: Cli):
    first = shop.client.pull("toy:1", tmp_path / "one")
    shop.lose_engine()
    shop.run({"nonce": True})
    at = ("--store", shop.client.store.root)
    lost = [cli(*at, "verify", "toy:1"), cli(*at, "pull", "toy:1", tmp_path / "none")]
    assert [(done.returncode, "which is toy:2" in done.stderr) for done in lost] == [(2, True), (2, True)]
    done = cli(*at, "store", "repair", "toy:1", "--from", first)
    assert (done.returncode, "toy:1 is restored" in done.stderr) == (0, True), done.stderr
    for name in ("toy:1", "toy:2"):
        assert cli(*at, "verify", name).returncode == 0
    again = shop.client.pull("toy:1", tmp_path / "again")
    assert engine(again) == engine(first)
    assert shop.run({"nonce": True}) == (2, [])


@pytest.mark.slow
def test_after_gc_the_old_version_is_said_to_be_collected_and_the_rebuild_is_a_new_one(
    shop: Workshop, tmp_path: Path
):
    shop.unpoint()
    assert shop.collect() == ["toy:1"]
    assert shop.run({"nonce": True})[0] == 2
    for asked in (shop.client.verify, lambda name: shop.client.pull(name, tmp_path / "none")):
        with pytest.raises(
            NotFound, match=r"toy:1: gc removed its files on 20.* any other becomes a new version"
        ):
            asked("toy:1")
    assert engine(shop.client.pull("toy:2", tmp_path / "two"))


@pytest.mark.slow
def test_gc_keeps_the_content_that_an_alias_points_at_and_takes_the_other(shop: Workshop, tmp_path: Path):
    pulled = shop.client.pull("toy:1", tmp_path / "one")
    shop.lose_engine()
    shop.run({"nonce": True})
    record = shop.client.resolve("toy:1")
    assert bring(shop.client.store, record.address, PulledSource(pulled))
    shop.client.promote("toy:1", "prod")
    shop.unpoint()
    shop.client.promote("toy:1", "prod")
    assert shop.collect() == ["toy:2"]
    assert shop.client.store.contents(record.engine_key) == [record.address]
    assert shop.client.verify("toy:1") == []
    assert shop.client.pull("toy:1", tmp_path / "again").is_dir()


def test_a_judgement_that_is_damaged_or_says_no_build_is_of_the_engine_only_if_it_is_younger(shop: Workshop):
    record, store = shop.client.resolve("toy:1"), shop.client.store
    key, built = record.lineage["evaluation"], store.manifest(record.address)
    assert find_judgement(store, "evaluation", key, record.manifest_digest, built.created_at)
    assert find_judgement(store, "evaluation", key, "f" * 64, built.created_at) is None
    scores = store.file(key, "scores.json")
    scores.chmod(0o644)
    scores.write_text("{}")  # as 0.1 wrote it
    made = store.manifest(key)
    for since, found in ((built.created_at, made.address), (made.created_at + timedelta(1), None)):
        assert find_judgement(store, "evaluation", key, "f" * 64, since) == found
    for damaged in ("", "[]", "{"):
        scores.write_text(damaged)
        assert find_judgement(store, "evaluation", key, record.manifest_digest, built.created_at) is None


@pytest.mark.parametrize("after_gc", [False, True])
def test_an_equal_engine_with_other_timings_is_the_same_version(
    equal: Workshop, tmp_path: Path, after_gc: bool
):
    first = equal.client.pull("toy:1", tmp_path / "one")
    if after_gc:
        equal.unpoint()
        assert equal.collect() == ["toy:1"]
    else:
        equal.lose_engine()
    version, built = equal.run({})
    assert (version, "engine" in built) == (1, True)
    assert equal.client.verify("toy:1") == []
    second = equal.client.pull("toy:1", tmp_path / "two")
    times = [(place / "tuning" / "times.json").read_text() for place in (first, second)]
    assert times[0] != times[1]
    assert equal.client.verify(first) == equal.client.verify(second) == []
    shutil.copy(first / "tuning" / "times.json", second / "tuning" / "times.json")
    assert equal.client.verify(second)[0].startswith("tuning/times.json: ")
    shutil.copy(first / "manifest.json", second / "manifest.json")
    assert equal.client.verify(second) != []  # its own caches are sealed with it


@pytest.mark.slow
def test_another_schedule_or_spelling_publishes_nothing_and_moves_no_alias(equal: Workshop):
    equal.run({"nonce": True})
    equal.client.rollback("toy@candidate")
    before = equal.client.log("toy")
    again = {"schedule": {"cron": "0 3 * * *"}, "model": {"path": "./model"}}
    assert equal.run({}, **again) == (1, [])
    assert equal.run({"nonce": True}, **again) == (2, [])
    assert equal.client.log("toy") == before
    assert equal.client.aliases("toy") == {"candidate": 1}
    assert json.dumps(equal.client.resolve("toy:1").recipe).count("schedule") == 0
