"""The table of kinds: one maker for each step, its tools in the key, and no key that changes with a maker's place."""

import dataclasses
import json
import os
import shutil
import subprocess  # noqa: TID251 another tree needs another interpreter
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from artifacts.store.opening import open_store
from pipeline import engines
from pipeline.child.door import load
from pipeline.child.kinds import KINDS, maker
from pipeline.plan.planning import plan_one, plan_sensitivity
from pipeline.process.host import PACKAGES
from pipeline.step.realize import Site
from pipeline.step.step import REVISIONS, Kind, Step
from recipes.load import load as load_recipes
from tests.jobs import params_of
from tests.pipeline.plans import DEMO, HOST, ROOT

ONLY_THE_TABLE = ("calibration.data.leakage", "pipeline.evaluate.measurement", "pipeline.evaluate.evaluation", "pipeline.evaluate.baseline",
               "pipeline.evaluate.tuned_engine", "calibration.data.calibration_set", "calibration.sensitivity.measure_sensitivity",
               "calibration.modelopt.calibrate", "calibration.statistics.statistics_pass",
               "pipeline.engines.aoti.build_aoti", "pipeline.engines.tensorrt.build_tensorrt")  # fmt: skip
"""Modules that only the table and their backends name."""


def demo_steps(store: Path) -> list[Step]:
    """Every step of the demo recipes, their trials and their sensitivity."""
    site = Site(store=open_store(store), host=HOST)
    recipes = [loaded for file in sorted(DEMO.glob("*.yaml")) for loaded in load_recipes(file)]
    steps = [step for loaded in recipes for step in plan_one(loaded, site).all_steps]
    return [*steps, *plan_sensitivity(recipes[0], site)]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    return demo_steps(tmp_path_factory.mktemp("demo") / "store")


def test_every_kind_of_step_has_makers_and_every_maker_is_of_a_kind():
    kinds = set(get_args(Kind))
    assert {kind.partition(".")[0] for kind in KINDS} == {*kinds, "generation"}
    assert REVISIONS.keys() == kinds
    assert not {f"engine.{name}" for name in engines.names()} & KINDS.keys()
    every = [*KINDS, *(f"engine.{name}" for name in engines.names())]
    assert len({maker(kind).function for kind in every}) == len(every)
    for kind in every:
        assert find_spec(maker(kind).function.partition(":")[0]), kind


def test_a_kind_that_does_not_exist_has_no_maker():
    for kind in ("engine", "engine.nothing", "nothing", "source.nothing"):
        with pytest.raises(KeyError):
            maker(kind)


@pytest.mark.slow
def test_the_key_of_a_step_names_the_tools_that_the_table_says(steps: list[Step]):
    assert {step.kind for step in steps} == set(get_args(Kind)) - {"dataset"}  # no demo recipe reads the hub
    for step in steps:
        assert set(step.params.document().get("tools", {})) == set(maker(step.maker).tools), step.maker
    assert {tool for kind in KINDS.values() for tool in kind.tools} <= set(PACKAGES)


@pytest.mark.parametrize("tool", sorted({tool for kind in KINDS.values() for tool in kind.tools}))
def test_a_new_version_of_a_tool_moves_the_keys_of_what_it_decides_and_of_what_follows(
    tool: str, tmp_path: Path
):
    (loaded,) = load_recipes(DEMO / "int4_awq_tp2.yaml")
    moved = []
    for version in ("1", "2"):
        host = dataclasses.replace(HOST, tools={**HOST.tools, tool: version})
        made = plan_one(loaded, Site(store=open_store(tmp_path / "store"), host=host)).steps
        moved.append({step.kind: step for step in made})
    before, after = moved
    own = {kind for kind in before if before[kind].params != after[kind].params}
    engine = {"engine"} if tool in params_of(before["engine"]).toolchain else set()
    assert own == engine | {kind for kind in before if tool in maker(before[kind].maker).tools}


def test_what_a_key_hashes_has_no_address(steps: list[Step]):
    for step in steps:
        assert step.as_dict().keys() == {"kind", "revision", "inputs", "params"}
        assert ":build" not in json.dumps(step.as_dict())


def moved_tree(where: Path) -> Path:
    """A copy of the packages in which the functions that make steps stand in modules of other names."""
    for package in ("artifacts", "calibration", "pipeline", "recipes"):
        shutil.copytree(ROOT / package, where / package, ignore=shutil.ignore_patterns("__pycache__"))
    table = where / "pipeline" / "child" / "kinds.py"
    for module in ONLY_THE_TABLE:
        file = where.joinpath(*module.split(".")).with_suffix(".py")
        file.rename(file.with_stem(f"{file.stem}_moved"))
        named = [table, file.with_name("__init__.py")]
        for naming in [path for path in named if path.exists()]:
            text = naming.read_text()
            for was in (f'Maker("{module}:build"', f'build = "{module}:build"'):
                text = text.replace(was, was.replace(":build", "_moved:build"))
            naming.write_text(text)
    assert (where / "pipeline" / "child" / "kinds.py").read_text().count('_moved:build"') == 9
    return where


REPORT = """
import json, sys
from pathlib import Path
import pipeline
from pipeline.child.kinds import maker
from pipeline.step.realize import Listener, Site, realize
from tests.pipeline.child.test_kinds import demo_steps
from tests.pipeline.plans import HOST
from artifacts.store.opening import open_store
store = Path(sys.argv[1])
steps = demo_steps(store)
leakage = next(step for step in steps if step.key == sys.argv[2])
made = realize(leakage, Site(store=open_store(store), host=HOST), Listener())
print(json.dumps({
    "from": pipeline.__file__, "functions": {step.maker: maker(step.maker).function for step in steps},
    "keys": [step.key for step in steps], "job": json.loads(open_store(store).log(leakage.key).with_suffix(
        ".job.json").read_text()), "files": sorted(made.manifest.files),
}))
"""


@pytest.mark.slow
def test_a_moved_function_changes_no_key_and_is_found(steps: list[Step], tmp_path: Path):
    tree, store = moved_tree(tmp_path / "tree"), open_store(tmp_path / "store")
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__", "cases"))
    leakage = next(step for step in steps if step.kind == "leakage")
    tokens = leakage.inputs["calibration_set"]
    with store.write(tokens, kind="calibration_set", step={}, host={}) as draft:
        (draft.path / "samples.jsonl").write_text('{"file": "a", "line": 1, "normalised": "0"}\n')
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(store.root), leakage.key],
        cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["from"] == str(tree / "pipeline" / "__init__.py")
    assert sum("_moved:build" in function for function in found["functions"].values()) == 10
    assert found["functions"]["leakage"] == "calibration.data.leakage_moved:build"
    assert found["functions"]["engine.aoti"] == "pipeline.engines.aoti.build_aoti_moved:build"
    assert not any(load(maker(kind).function).__module__.endswith("_moved") for kind in ("leakage", "source"))
    assert found["keys"] == [step.key for step in steps]
    assert found["job"]["kind"] == "leakage"
    assert "builder" not in found["job"]
    assert ":build" not in json.dumps(found["job"])
    assert found["files"] == ["leakage.json"]
