"""Heads as a source of their own: what is read, copied and refused, and what a plan makes of them."""

import json
from pathlib import Path

import pytest
import torch

from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from pipeline.drafting import heads
from pipeline.errors import SourceError
from pipeline.plan import speculation
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.plan.refusals import refusals
from pipeline.run.publish import lineage
from pipeline.step.step_parameters import Proposals
from recipes.errors import RecipeError
from recipes.load import load
from recipes.schema import Model
from tests.jobs import build_heads, params_of
from tests.medusa import demo_heads, write
from tests.pipeline.plans import HOST, recipe_file


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store")


def planned(tmp_path: Path, store: LocalStore, directory, **changes):
    asked = {"mode": "medusa", "max_draft_len": 8, "draft": {"path": str(directory)}}
    asked |= changes.pop("speculative", {})
    (loaded,) = load(recipe_file(tmp_path, speculative=asked, **changes))
    return loaded, gather(loaded, HOST, store)


def told(loaded, facts) -> list[str]:
    found = speculation.reasons(loaded.recipe, facts)
    assert set(found) <= set(refusals(loaded.recipe, facts).recipe)
    return found


def test_the_heads_have_a_step_of_their_own_and_come_into_the_sharded_checkpoint(
    tmp_path: Path, store: LocalStore
):
    loaded, facts = planned(tmp_path, store, demo_heads(tmp_path / "heads"))
    made = plan(loaded, facts)
    assert told(loaded, facts) == []
    source, sharded = made.step("heads_source"), made.step("sharded_checkpoint")
    assert sharded.inputs["heads"] == source.key
    assert params_of(sharded).speculative == Proposals(mode="medusa", max_draft_len=8)
    assert made.steps.index(source) < made.steps.index(sharded)
    assert made.step("engine").inputs == {"sharded_checkpoint": sharded.key}
    assert lineage(made)["heads_source"] == source.key

    (alone,) = load(recipe_file(tmp_path))
    plain = {step.name: step.key for step in plan(alone, gather(alone, HOST, store)).steps}
    moved = {name for name in plain if plain[name] != made.step(name).key}
    assert moved == {"sharded_checkpoint", "engine", "measurement", "evaluation"}


def test_what_is_known_before_the_first_byte_is_refused_by_the_plan(tmp_path: Path, store: LocalStore):
    loaded, facts = planned(tmp_path, store, demo_heads(tmp_path / "other", vocab=999))
    assert [one.split(";")[0] for one in told(loaded, facts)] == [
        "speculative.draft: the heads' vocabulary is 999, the model's 2048"
    ]
    loaded, facts = planned(
        tmp_path, store, demo_heads(tmp_path / "heads"), speculative={"draft_format": "int8_wo"}
    )
    assert told(loaded, facts)[0].startswith("speculative.draft_format: 'int8_wo' is for a draft model")


def test_pickles_missing_directories_and_repositories_are_refused(tmp_path: Path, store: LocalStore):
    directory = demo_heads(tmp_path / "heads")
    (directory / "medusa_lm_head.safetensors").rename(directory / "medusa_lm_head.pt")
    with pytest.raises(
        RecipeError, match=r"speculative\.draft: .*pickled weights only \(medusa_lm_head\.pt\)"
    ):
        planned(tmp_path, store, directory)
    with pytest.raises(SourceError, match="no such directory"):
        heads.read_heads(Model(path="nowhere"), tmp_path, store)
    with pytest.raises(SourceError, match="heads are read from a directory; download"):
        heads.read_heads(Model(repo="a/b", revision="0" * 40), tmp_path, store)


def test_the_copy_is_complete_and_changes_are_noticed(tmp_path: Path, store: LocalStore):
    directory = demo_heads(tmp_path / "heads")
    (directory / "LICENSE").write_text("free")
    (directory / "medusa_lm_head.pt").write_bytes(b"\x80pickle")
    found = heads.read_heads(Model(path=str(directory)), tmp_path, store)
    job = {"params": found.params, "places": found.places, "inputs": {}}
    out = tmp_path / "out"
    out.mkdir()
    build_heads(job, out, lambda *_: None)
    names = ["LICENSE", "config.json", "medusa_lm_head.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (directory / name).read_bytes() for name in names)
    (directory / "config.json").write_text(json.dumps({"medusa_num_heads": 7}))
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(SourceError, match="changed after the plan was made"):
        build_heads(job, again, lambda *_: None)


def test_heads_that_are_no_numbers_are_refused(tmp_path: Path, store: LocalStore):
    directory = write(tmp_path / "heads", {"0.0.linear.bias": torch.tensor([1.0, float("nan")])})
    found = heads.read_heads(Model(path=str(directory)), tmp_path, store)
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match=r"0\.0\.linear\.bias.*NaN"):
        build_heads(
            {"params": found.params, "places": found.places, "inputs": {}}, tmp_path / "out", lambda *_: None
        )
