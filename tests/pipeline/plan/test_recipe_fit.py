"""Recipes and their GPUs, from a config.json without weights."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.store.opening import open_store
from pipeline.fit.table import rows, sentences
from pipeline.plan.facts import Facts, gather
from pipeline.plan.planning import draft, plan_one
from pipeline.plan.recipe_fit import misfits, predicted
from pipeline.plan.refusals import refusals
from pipeline.process.gpus import TARGETS
from pipeline.step.realize import Site
from recipes.load import Loaded, load
from recipes.schema import Tune
from tests.callables import Cli
from tests.pipeline.plans import DEMO, HOST, ROOT, recipe_file

PRODUCTION = ROOT / "recipes" / "production"
RECIPES = sorted(PRODUCTION.glob("*.yaml"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty store on a host that is always the same."""
    return Site(store=open_store(tmp_path / "store"), host=HOST)


def facts_of(name: str, site: Site, **engine: object) -> tuple[Loaded, Facts]:
    """A shipped recipe with settings of its engine changed, and what is known about it."""
    (loaded,) = load(PRODUCTION / f"{name}.yaml")
    settings = loaded.recipe.engine.model_copy(update=engine)
    changed = loaded.recipe.model_copy(update={"engine": settings})
    return Loaded(changed, loaded.file), gather(loaded, HOST, site.store)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_production_recipe_is_named_after_its_path_and_has_no_problem_of_its_own(
    file: Path, site: Site
):
    (loaded,) = load(file)
    assert loaded.recipe.name == f"production/{file.stem}"
    assert refusals(loaded.recipe, gather(loaded, HOST, site.store)).recipe == ()


@pytest.mark.parametrize(("name", "parameters"), [("llama-3.1-8b", 8.03e9), ("llama-3.1-70b", 70.55e9)])
def test_a_config_without_weights_says_how_large_they_are(name: str, parameters: float, site: Site):
    """Parameters as the models' cards give them."""
    recipe = {"llama-3.1-8b": "8b_fp8_h100", "llama-3.1-70b": "70b_bf16_h100"}[name]
    _, facts = facts_of(recipe, site)
    assert facts.source.weight_bytes / 2 == pytest.approx(parameters, rel=0.001)
    assert f"./{name} holds config.json and no weights" in facts.source.lacking


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("8b_fp8_h100", "fits"),
        ("70b_fp8_kv_h200", "fits"),
        ("8b_int4_awq_a100", "queues"),
        ("70b_bf16_h100", "impossible"),
    ],
)
def test_the_production_recipes_fit_as_their_comments_say(name: str, verdict: str, site: Site):
    loaded, facts = facts_of(name, site)
    found = predicted(loaded.recipe, facts, loaded.recipe.engine)
    assert found is not None
    assert found.verdict == verdict


def test_an_engine_that_does_not_fit_is_refused_with_the_cheapest_change(site: Site):
    loaded, facts = facts_of("70b_bf16_h100", site)
    said = "\n".join(refusals(loaded.recipe, facts).host)
    assert "engine: does not fit h100 (batch 8, 131072 tokens, tp 2, pp 1)" in said
    assert "cheapest change: engine.tp: 4" in said


def test_an_engine_with_problems_of_its_own_is_not_planned(site: Site):
    loaded, facts = facts_of("70b_bf16_h100", site, tp=3)
    found = refusals(loaded.recipe, facts)
    assert "engine.tp: 3 does not divide 64 attention heads" in found.recipe[0]
    assert "does not fit" not in "".join(found.host)


def test_every_point_of_a_search_has_to_fit(site: Site):
    loaded, facts = facts_of("8b_fp8_h100", site)
    search = Tune(space={"max_seq_len": (4096, 131072), "max_batch_size": (1, 2048)})
    deep = dataclasses.replace(facts.source.shape, num_layers=512, windows=(None,) * 512)
    large = dataclasses.replace(facts.source, shape=deep)
    recipe = loaded.recipe.model_copy(update={"tune": search})
    said = refusals(recipe, dataclasses.replace(facts, source=large)).host
    assert sum("does not fit h100" in problem for problem in said) == 4


def test_an_engine_that_only_queues_is_not_refused(site: Site):
    loaded, facts = facts_of("8b_int4_awq_a100", site)
    assert list(misfits(loaded.recipe, facts, [loaded.recipe.engine])) == []


@pytest.mark.parametrize("engine", [{"target": "host"}, {"backend": "aoti"}])
def test_nothing_is_predicted_without_a_gpu_type(engine: dict[str, Any], site: Site):
    loaded, facts = facts_of("8b_fp8_h100", site, **engine)
    assert predicted(loaded.recipe, facts, loaded.recipe.engine) is None


def test_the_table_adds_up_and_names_ranks_that_are_alike_once(site: Site):
    loaded, facts = facts_of("70b_fp8_kv_h200", site)
    found = predicted(loaded.recipe, facts, loaded.recipe.engine)
    assert found is not None
    (row,) = rows(found, TARGETS["h200"])
    parts = [row[name] for name in ("weights", "activations", "buffers", "context", "keys_and_values")]
    assert row["rank"] == "0-3"
    assert row["total"] == pytest.approx(sum(parts), abs=0.03)
    assert row["total"] < row["gpu"] == pytest.approx(150.75, abs=0.01)


def test_stages_that_differ_have_rows_of_their_own(site: Site):
    loaded, facts = facts_of("70b_fp8_kv_h200", site, tp=2, pp=2)
    found = predicted(loaded.recipe, facts, loaded.recipe.engine)
    assert found is not None
    assert [row["rank"] for row in rows(found, TARGETS["h200"])] == ["0-1", "2-3"]


def test_the_sentences_name_limits_verdict_and_change(site: Site):
    loaded, facts = facts_of("70b_bf16_h100", site)
    found = predicted(loaded.recipe, facts, loaded.recipe.engine)
    assert found is not None
    said = list(sentences(found, loaded.recipe.engine))
    assert said[-2].startswith("does not fit on 2 x h100: rank 0 has")
    assert said[-1] == "cheapest change: engine.tp: 4 (4 GPUs)"


def bare_recipe(tmp_path: Path, **changes: object) -> Path:
    """The demo's recipe beside a directory with nothing but its model's config.json."""
    (tmp_path / "bare").mkdir()
    shutil.copy(DEMO / "model" / "config.json", tmp_path / "bare")
    return recipe_file(tmp_path, **{"model.path": "bare", **changes})


def test_a_model_without_weights_is_planned_and_its_steps_have_no_keys(tmp_path: Path, site: Site):
    drafted = draft(load(bare_recipe(tmp_path))[0], site)
    assert drafted.unkeyed == {step.key for step in drafted.plan.steps}
    assert drafted.refusals.host == (
        "model.path: bare holds config.json and no weights; add safetensors files and tokenizer",
    )


def test_a_model_with_weights_leaves_no_step_without_a_key(tmp_path: Path, site: Site):
    drafted = draft(load(recipe_file(tmp_path))[0], site)
    assert drafted.unkeyed == frozenset()
    assert drafted.refusals.host == ()
    assert plan_one(drafted.loaded, site) == drafted.plan


def test_the_command_plans_a_model_without_weights_and_run_refuses_it(cli: Cli, tmp_path: Path):
    file = bare_recipe(tmp_path)
    planned = cli("--store", tmp_path / "s", "--json", "plan", file)
    answer = json.loads(planned.stdout)["answer"]
    assert planned.returncode == 4
    assert {step["key"] for step in answer["steps"]} == {None}
    assert "no weights" in answer["lacking"][0]
    run = cli("--store", tmp_path / "s", "run", file)
    assert run.returncode == 4
    assert "holds config.json and no weights" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("beside", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_a_directory_with_weights_that_cannot_be_read_is_still_refused(tmp_path: Path, cli: Cli, beside: str):
    file = bare_recipe(tmp_path)
    (tmp_path / "bare" / beside).write_text("{}")
    assert cli("--store", tmp_path / "s", "plan", file).returncode == 2


def test_a_changed_shape_changes_the_plan_of_a_model_without_weights(tmp_path: Path, site: Site):
    loaded, facts = facts_of("8b_fp8_h100", site)
    small = dataclasses.replace(facts.source, shape=dataclasses.replace(facts.source.shape, num_layers=16))
    half = predicted(loaded.recipe, dataclasses.replace(facts, source=small), loaded.recipe.engine)
    whole = predicted(loaded.recipe, facts, loaded.recipe.engine)
    assert half is not None
    assert whole is not None
    assert 2 * half.ranks[0].kv_per_token == whole.ranks[0].kv_per_token


def test_a_recipe_for_a_toolchain_that_is_not_here_has_keys_up_to_its_engine(tmp_path: Path, site: Site):
    change = {"format": "fp8", "engine.backend": "tensorrt", "engine.target": "h100"}
    drafted = draft(load(recipe_file(tmp_path, **change))[0], site)
    without = {step.kind for step in drafted.plan.steps if step.key in drafted.unkeyed}
    assert without == {"engine", "measurement", "evaluation"}
    assert drafted.fit is not None
    assert drafted.fit.verdict == "fits"
    assert any("needs a TensorRT-LLM toolchain" in problem for problem in drafted.refusals.host)


def test_the_command_shows_steps_and_fit_and_exits_4_with_the_cheapest_change(cli: Cli, tmp_path: Path):
    file = PRODUCTION / "70b_bf16_h100.yaml"
    done = cli("--store", tmp_path / "s", "plan", file)
    assert done.returncode == 4
    assert "tensorrt, batch 8, 131072 tokens" in done.stdout
    assert "does not fit on 2 x h100" in done.stdout
    assert "engine: does not fit h100" in done.stderr
    assert "cheapest change: engine.tp: 4 (4 GPUs)" in done.stderr


def test_the_command_answers_with_the_fit_in_json(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "--json", "plan", PRODUCTION / "70b_fp8_kv_h200.yaml")
    answer = json.loads(done.stdout)
    fit = answer.get("answer", answer)["fit"]  # where this host lacks the GPUs, the answer is beside an error
    assert fit["verdict"] == "fits"
    assert [rank["rank"] for rank in fit["ranks"]] == [0, 1, 2, 3]


def test_what_the_builder_would_decide_is_said_with_the_plan(site: Site):
    (loaded,) = load(PRODUCTION / "70b_fp8_kv_h200.yaml")
    drafted = draft(loaded, site)
    assert "engine.options.opt_num_tokens: unset, because multiple_profiles takes its place" in drafted.notes
