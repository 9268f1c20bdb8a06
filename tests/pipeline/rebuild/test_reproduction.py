"""Versions built again: real child processes with small builders, and comparisons of stores made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from artifacts.client import Client
from artifacts.errors import NotFound
from artifacts.store.local import LocalStore
from artifacts.version import IMPORTED
from pipeline.errors import ExchangeRefused
from pipeline.process.host import probe
from pipeline.rebuild import reproduction
from pipeline.rebuild.reproduction import Reproduction, Stage
from pipeline.step.realize import Listener, Site
from recipes.schema import Recipe
from tests.pipeline.toy_steps import CHILD, run, toy_plan

RECIPE = {
    "version": 1,
    "name": "toy/engine",
    "model": {"path": "./model"},
    "format": "fp8",
    "calibration": {"data": [{"path": "data.jsonl"}], "seq_len": 16, "max_sequences": 4},
    "engine": {"backend": "aoti", "max_batch_size": 4, "max_seq_len": 128},
    "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.1}},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    """A version that was built by real children, its plan and where it is."""
    root = tmp_path_factory.mktemp("published")
    client = Client(str(root / "store"))
    site = Site(store=client.store, host=probe(), child=CHILD)
    made = toy_plan(Recipe.model_validate(RECIPE), root / "recipe.yaml")
    run(made, site, client.registry, Listener())
    return client.resolve("toy/engine"), made, site


@pytest.mark.slow
def test_a_rebuild_without_changes_is_identical_and_leaves_out_what_only_measures(published, tmp_path: Path):
    record, made, site = published
    again = replace(site, store=LocalStore(tmp_path / "scratch"))
    built = reproduction.rebuild(made, again, Listener())
    kinds = [one.step.kind for one in built]
    assert kinds == ["source", "calibration_set", "quantized_checkpoint", "sharded_checkpoint", "engine"]
    assert not any(one.cached for one in built)
    found = reproduction.compare(record, made, site.store, again.store)
    assert (found.outcome, [stage.kind for stage in found.stages]) == ("identical", kinds)
    assert found.as_dict()["stages"][-1]["identical"] == 3

    changed = toy_plan(
        made.recipe.model_copy(update={"engine": _with(made.recipe, note="x")}), Path("recipe.yaml")
    )
    assert reproduction.changed_sources(record, changed) == ["source"]
    reproduction.rebuild(changed, again, Listener())
    other = reproduction.compare(record, changed, site.store, again.store)
    assert other.stages[-1].asked == ("params.note was absent, is x",)
    assert other.outcome == "identical"

    site.store.discard(made.step("engine").key)
    assert reproduction.compare(record, made, site.store, again.store).stages[-1].missing
    with pytest.raises(NotFound):
        site.store.manifest(record.engine_key)


def _with(recipe, **options):
    return recipe.engine.model_copy(update={"options": options})


@pytest.fixture
def stage(tmp_path: Path):
    """Compares two artifacts of a kind, given as files."""

    def compare(kind, was, now) -> Stage:
        stores = []
        for place, files in (("was", was), ("now", now)):
            store = LocalStore(tmp_path / place)
            key = f"{len(store.keys()):064x}"
            with store.write(key, kind=kind, step={"kind": kind}, host={}) as draft:
                for name, data in files.items():
                    (draft.path / name).write_bytes(data)
            stores.append((store, store.manifest(key)))
        (old, theirs), (new, ours) = stores
        identical, differences = reproduction._files(theirs, ours, old, new)
        return Stage(
            kind=kind,
            was=theirs.key,
            key=ours.key,
            asked=(),
            identical=identical,
            differences=tuple(differences),
        )

    return compare


def weights(value):
    return save({"a": np.array([value], np.float32)})


def outcome(*stages) -> str:
    return Reproduction(reference="x:1", stages=stages).outcome


def test_code_that_differs_is_equivalent_only_where_the_weights_are_known_to_be_the_same(stage):
    same = stage("sharded_checkpoint", {"r.safetensors": weights(1)}, {"r.safetensors": weights(1)})
    other = stage("sharded_checkpoint", {"r.safetensors": weights(1)}, {"r.safetensors": weights(2)})
    code = stage("engine", {"rank0.engine": b"1", "t": b""}, {"rank0.engine": b"2", "t": b""})
    assert code.identical == 1
    assert outcome(same, code) == "equivalent"
    assert outcome(other, code) == "different"
    assert outcome(code) == "different"
    assert outcome(replace(same, missing=True), code) == "different"


def test_weights_or_limits_that_differ_make_another_engine(stage):
    same = stage("sharded_checkpoint", {"r.safetensors": weights(1)}, {"r.safetensors": weights(1)})
    heavier = stage("engine", {"r.safetensors": weights(1)}, {"r.safetensors": weights(2)})
    wider = stage("engine", {"config.json": b"{}"}, {"config.json": b'{"a": 1}'})
    noted = stage("engine", {"engine.json": b"{}"}, {"engine.json": b'{"a": 1}'})
    assert [outcome(same, one) for one in (heavier, wider, noted)] == ["different", "different", "equivalent"]


@pytest.mark.slow
def test_an_imported_version_and_a_recipe_of_another_time_are_refused(published, tmp_path: Path):
    record, made, _ = published
    assert reproduction.recipe_of(record, tmp_path).recipe == made.recipe
    assert reproduction.recipe_of(record, tmp_path).base == tmp_path
    unread = record.recipe | {"schedule": {"cron": "every night", "timezone": "UTC"}}  # 0.1 published this
    assert reproduction.recipe_of(replace(record, recipe=unread), tmp_path).recipe == made.recipe
    with pytest.raises(ExchangeRefused, match="was imported"):
        reproduction.recipe_of(replace(record, origin=IMPORTED), tmp_path)
    with pytest.raises(ExchangeRefused, match=r"not one of this version \(colour: "):
        reproduction.recipe_of(replace(record, recipe=record.recipe | {"colour": "red"}), tmp_path)
