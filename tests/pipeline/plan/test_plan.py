"""Plans: which steps, and which keys."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.store.opening import open_store
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.plan.planning import plan_one
from pipeline.process.host import Gpu
from pipeline.step.realize import Site
from recipes.formats import FORMATS
from recipes.load import load
from tests.pipeline.plans import DATA, DEMO, HOST, TOOLS, keys, planned, recipe_file

RECIPES = sorted(DEMO.glob("*.yaml"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty store on a host that is always the same."""
    return Site(store=open_store(tmp_path / "store"), host=HOST)


@pytest.mark.slow
@pytest.mark.parametrize("file", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_plans_and_is_named_after_its_path(file: Path, site: Site):
    for loaded in load(file):
        assert loaded.recipe.name.startswith(f"demo/{file.stem}")
        kinds = [step.kind for step in plan_one(loaded, site).steps]
        assert kinds[0] == "source"
        assert kinds[-1] == "evaluation"


def test_shipped_recipes_cover_every_format_and_layout():
    recipes = [one.recipe for file in RECIPES for one in load(file)]
    covered = {(str(r.precision), r.engine.tp, r.engine.pp) for r in recipes}
    layouts = [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert {(f, *layout) for f in FORMATS for layout in layouts} <= covered


def test_the_steps_of_a_calibrated_recipe(tmp_path: Path, site: Site):
    kinds = [step.kind for step in planned(recipe_file(tmp_path), site).steps]
    assert kinds == [
        "source", "calibration_set", "leakage", "statistics", "quantized_checkpoint", "sharded_checkpoint",
        "engine", "measurement", "baseline", "evaluation",
    ]  # fmt: skip


def test_an_unquantized_recipe_shards_the_source_itself(tmp_path: Path, site: Site):
    made = planned(recipe_file(tmp_path, format="none"), site)
    assert made.step("sharded_checkpoint").inputs == {"checkpoint": made.step("source").key}
    assert "quantized_checkpoint" not in [step.kind for step in made.steps]


def test_a_weight_only_format_needs_no_calibration_set(tmp_path: Path, site: Site):
    made = planned(recipe_file(tmp_path, format="int8_wo"), site)
    assert made.step("quantized_checkpoint").inputs == {"source": made.step("source").key}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"engine.max_batch_size": 2}, {"engine", "measurement", "evaluation"}),
        ({"engine.tp": 1}, {"sharded_checkpoint", "engine", "measurement", "evaluation"}),
        ({"gate.seq_len": 128}, {"baseline", "evaluation"}),
        ({"gate.limits.kl": 0.5}, set()),
        ({"publish.alias": "prod"}, set()),
        ({"name": "another"}, set()),
        (
            {"calibration.seed": 1},
            {
                "calibration_set",
                "leakage",
                "statistics",
                "quantized_checkpoint",
                "sharded_checkpoint",
                "engine",
                "measurement",
                "evaluation",
            },
        ),
    ],
)
def test_a_change_moves_only_the_keys_that_depend_on_it(
    tmp_path: Path, site: Site, change: dict[str, Any], moved
):
    before = keys(planned(recipe_file(tmp_path), site))
    after = keys(planned(recipe_file(tmp_path, **change), site))
    assert {kind for kind in before if before[kind] != after[kind]} == moved


def test_keys_do_not_depend_on_where_files_are(tmp_path: Path, site: Site):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(DEMO, elsewhere)
    here = planned(DEMO / "int4_awq_tp2.yaml", site)
    there = planned(elsewhere / "int4_awq_tp2.yaml", site)
    assert keys(here) == keys(there)


def test_a_new_tool_version_moves_the_keys_of_what_it_made(tmp_path: Path, site: Site):
    (loaded,) = load(recipe_file(tmp_path))
    facts = gather(loaded, HOST, site.store)
    newer = dataclasses.replace(HOST, tools={**TOOLS, "nvidia-modelopt": "0.48.0"})
    before, after = keys(plan(loaded, facts)), keys(plan(loaded, dataclasses.replace(facts, host=newer)))
    assert before["quantized_checkpoint"] != after["quantized_checkpoint"]
    assert before["baseline"] == after["baseline"]


def test_a_search_is_planned_as_trials(site: Site):
    made = planned(DEMO / "fp8_tuned.yaml", site)
    assert len(made.trials) == 4
    assert made.step("engine").inputs["engine_3"] == made.trials[3].engine.key
    assert len({trial.engine.key for trial in made.trials}) == 4


def test_a_gpu_host_is_part_of_what_is_computed_on_it_only(tmp_path: Path, site: Site):
    gpu = Gpu("NVIDIA H200", 90, 141 << 30, "580.1")
    (loaded,) = load(recipe_file(tmp_path))
    facts = gather(loaded, HOST, site.store)
    other = dataclasses.replace(facts, host=dataclasses.replace(HOST, gpus=(gpu,)))
    before, after = keys(plan(loaded, facts)), keys(plan(loaded, other))
    assert before["measurement"] != after["measurement"]
    assert before["statistics"] != after["statistics"]  # a GPU sums in another order
    assert before["calibration_set"] == after["calibration_set"]
    assert before["baseline"] == after["baseline"]


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"calibration.data": [DATA | {"samples": 40}]}, True),
        ({"calibration.data": [DATA | {"columns": {"text": "text"}}]}, True),
        ({"calibration.data": [DATA | {"bad_rows": {"skip": 3}}]}, True),
        ({"calibration.total": {"samples": 40}}, True),
        ({"calibration.pack": False}, True),
        ({"calibration.truncate": "left"}, True),
        ({"gate.data.samples": 100}, False),
        ({"engine.max_seq_len": 1024}, False),
    ],
)
def test_the_calibration_set_depends_on_its_own_data_only(
    tmp_path: Path, site: Site, change: dict[str, Any], moves: bool
):
    before = keys(planned(recipe_file(tmp_path), site))
    after = keys(planned(recipe_file(tmp_path, **change), site))
    assert (before["calibration_set"] != after["calibration_set"]) == moves
    assert (before["leakage"] != after["leakage"]) == moves


def test_a_template_is_part_of_the_key_by_its_text(tmp_path: Path, site: Site):
    made = set()
    for name, text in (
        ("a.jinja", "{{ messages }}"),
        ("b.jinja", "{{ messages }}"),
        ("c.jinja", "{{ messages[0] }}"),
    ):
        (tmp_path / name).write_text(text)
        made.add(keys(planned(recipe_file(tmp_path, **{"gate.data.template": name}), site))["baseline"])
    assert len(made) == 2


def test_a_plan_with_a_parquet_file_imports_no_pyarrow(tmp_path: Path, run_python: Callable[[str], str]):
    (tmp_path / "data.parquet").write_bytes(b"PAR1\x15 no column is looked at\x18\0\0\0PAR1")
    file = recipe_file(tmp_path, **{"calibration.data": [{"path": "data.parquet"}]})
    said = run_python(
        "import sys; from pathlib import Path; from recipes.load import load; from pipeline.plan.facts import gather\n"
        "from artifacts.store.opening import open_store; from pipeline.process.host import probe\n"
        f"gather(load(Path({str(file)!r}))[0], probe(), open_store(Path({str(tmp_path / 'store')!r})))\n"
        "print(sorted({'pyarrow', 'datasets', 'torch', 'huggingface_hub'} & sys.modules.keys()))"
    )
    assert said.strip() == "[]"
