"""`enginery tools sensitivity` and `enginery show KEY`, from a recipe to the exceptions that paste into it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.store.opening import open_store
from pipeline.errors import EXIT_CODES
from pipeline.plan.planning import plan_one, plan_sensitivity
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from recipes.errors import RecipeError
from recipes.load import load
from recipes.precision import Precision
from tests.calibration.placed import place_statistics
from tests.callables import Cli
from tests.main_job import write_recipe
from tests.present import present

MIXED = {"default": "fp8", "except": {"model.layers.0.*": "none"}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the statistics of the small recipe, and the recipe."""
    root = tmp_path_factory.mktemp("sensitivity")
    recipe = write_recipe(root / "recipe.yaml")
    place_statistics(recipe, Site(store=open_store(root / "store"), host=probe()))
    return root


def steps(file: Path, site: Site):
    """Kinds and keys of a recipe's sensitivity."""
    (loaded,) = load(file)
    return {step.kind: step.key for step in plan_sensitivity(loaded, site)}


def test_the_steps_are_those_of_the_recipe_and_one_more(tmp_path: Path):
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    file = write_recipe(tmp_path / "recipe.yaml")
    found = steps(file, site)
    assert list(found) == ["source", "calibration_set", "statistics", "sensitivity"]
    (loaded,) = load(file)
    assert found["statistics"] == plan_one(loaded, site).step("statistics").key


@pytest.mark.parametrize(
    "changes",
    [{"format": "none"}, {"format": "int4_awq"}, {"format": MIXED}, {"calibration__method": "modelopt"},
     {"engine__tp": 2}, {"name": "another"}],
    ids=str,
)  # fmt: skip
def test_formats_engines_and_names_share_one_measurement(tmp_path: Path, changes: dict[str, Any]):
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    plain = steps(write_recipe(tmp_path / "a.yaml"), site)
    assert steps(write_recipe(tmp_path / "b.yaml", **changes), site) == plain


def test_another_smoothing_measures_again_from_the_same_statistics(tmp_path: Path):
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    plain = steps(write_recipe(tmp_path / "a.yaml"), site)
    other = steps(write_recipe(tmp_path / "b.yaml", calibration__smoothing=0.5), site)
    assert {kind for kind in plain if plain[kind] != other[kind]} == {"sensitivity"}


def test_no_engine_is_asked_for(tmp_path: Path):
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    file = write_recipe(tmp_path / "recipe.yaml", engine__tp=3, engine__backend="tensorrt")
    assert "sensitivity" in steps(file, site)


def test_a_cap_too_low_for_one_sequence_is_refused_with_file_and_field(tmp_path: Path):
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    file = write_recipe(tmp_path / "recipe.yaml", format="none", calibration__memory={"host_gb": 0.2})
    with pytest.raises(
        RecipeError, match=r"recipe\.yaml: 1 problem\n.*calibration\.memory: host_gb is 0\.20"
    ):
        steps(file, site)


def test_a_recipe_without_calibration_is_refused(tmp_path: Path, cli: Cli):
    file = write_recipe(tmp_path / "recipe.yaml", format="int8_wo", calibration=None)
    done = cli("--store", tmp_path / "store", "tools", "sensitivity", file)
    assert done.returncode == EXIT_CODES[RecipeError]
    assert "calibration is required: sensitivity is measured on data" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "fp9"), "unknown format 'fp9'; did you mean 'fp8'?"),
        (("--format", "none"), "--format none quantizes nothing"),
        (("--wider", "int8_wo"), "--wider int8_wo has no more bits than fp8; allowed: none"),
        (("--keep", "1", "--gain", "0.5"), "give one"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_any_work(
    tmp_path: Path, cli: Cli, options: tuple[str, ...], said: str
):
    file = write_recipe(tmp_path / "recipe.yaml")
    done = cli("--store", tmp_path / "store", "tools", "sensitivity", file, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert open_store(tmp_path / "store").keys() == []


def test_awq_needs_its_search_in_the_statistics(tmp_path: Path, cli: Cli):
    file = write_recipe(tmp_path / "recipe.yaml", calibration__statistics="ranges")
    done = cli("--store", tmp_path / "store", "tools", "sensitivity", file, "--format", "int4_awq")
    assert done.returncode == 2
    assert "int4_awq needs AWQ's search; the recipe must have calibration.statistics: all" in done.stderr


@pytest.mark.slow
def test_the_proposal_pastes_into_the_recipe(cli: Cli, measured: Path, tmp_path: Path):
    done = cli("--store", measured / "store", "tools", "sensitivity", measured / "recipe.yaml", "--keep", "3")
    assert done.returncode == 0, done.stderr
    assert "3 of 16 units stay at the source dtype: " in done.stdout
    assert "a proxy: it adds up the errors of linears" in done.stderr
    snippet = present(re.search(r"^format:\n(?: .*\n)+", done.stdout, re.MULTILINE)).group()
    plain = yaml.safe_load(write_recipe(tmp_path / "recipe.yaml").read_text())
    del plain["format"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain) + snippet)
    (loaded,) = load(tmp_path / "recipe.yaml")
    again = cli(
        "--store",
        measured / "store",
        "--json",
        "tools",
        "sensitivity",
        measured / "recipe.yaml",
        "--keep",
        "3",
    )
    answer = json.loads(again.stdout)
    assert loaded.recipe.precision == Precision.parse(answer["proposals"][0]["format"])
    assert re.search(r"sensitivity +\w+ +cached", again.stderr)
    assert plan_one(loaded, Site(store=open_store(measured / "store"), host=probe()))


@pytest.mark.slow
def test_several_formats_are_told_from_one_measurement(cli: Cli, measured: Path):
    asked = ("tools", "sensitivity", measured / "recipe.yaml", "--format", "int4_awq", "--format", "int4_wo", "--wider", "int8_wo",
             "--gain", "0.4")  # fmt: skip
    answer = json.loads(cli("--store", measured / "store", "--json", *asked).stdout)
    assert [one["format"]["default"] for one in answer["proposals"]] == ["int4_awq", "int4_wo"]
    for one in answer["proposals"]:
        assert one["gain"] >= 0.4
        assert set(one["format"]["except"].values()) == {"int8_wo"}
    key = cli("--store", measured / "store", "-q", *asked).stdout.strip()
    assert key == answer["key"]
    shown = cli("--store", measured / "store", "show", key[:12]).stdout
    assert f"sensitivity {key}" in shown
    assert "page.html" in shown


@pytest.mark.slow
def test_show_gives_coverage_and_reports_of_artifacts(cli: Cli, measured: Path):
    site = Site(store=open_store(measured / "store"), host=probe())
    (loaded,) = load(write_recipe(measured / "mixed.yaml", format=MIXED))
    made = plan_one(loaded, site)
    checkpoint = made.step("quantized_checkpoint")
    realize(checkpoint, site, Listener())
    told = cli("--store", measured / "store", "show", checkpoint.key[:12], COLUMNS="240").stdout
    assert "21 of 29 linears quantized, 8 left at the source dtype" in told
    assert re.search(r"model\.layers\.\{1\.\.3\}\.mlp\.down_proj +fp8 +fp8", told)
    assert re.search(r"model\.layers\.0\.mlp\.down_proj +source +source .*'model\.layers\.0\.\*'", told)
    whole = json.loads(cli("--store", measured / "store", "--json", "show", checkpoint.key).stdout)
    assert whole["kind"] == "quantized_checkpoint"
    assert len(whole["document"]["modules"]) == 29
    assert whole["inputs"]["statistics"] == made.step("statistics").key
    told = cli("--store", measured / "store", "show", made.step("statistics").key[:12]).stdout
    assert "the 10 widest inputs" in told
    assert (
        "tokens" in cli("--store", measured / "store", "show", made.step("calibration_set").key[:12]).stdout
    )
