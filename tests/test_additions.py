"""A backend is one folder, an exporter one file: toys put at that place only, in a copy of the product, work."""

import json
import os
import shutil
import subprocess  # noqa: TID251 the copy runs as a shell would run it
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.export import published
from tests.pipeline.plans import recipe_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("artifacts", "calibration", "pipeline", "recipes")
TOYS = ROOT / "tests" / "pipeline"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with both toys in it; the schema declares the backend's name."""
    copy: Path = tmp_path_factory.mktemp("product")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TOYS / "engines" / "toy", copy / "pipeline" / "engines" / "toy")
    shutil.copyfile(
        TOYS / "export" / "toy_server.py", copy / "pipeline" / "export" / "exporters" / "toy_server.py"
    )
    schema = copy / "recipes" / "schema.py"
    declared = schema.read_text().replace('"trtllm_torch"] = "aoti"', '"trtllm_torch", "toy"] = "aoti"')
    assert declared != schema.read_text()
    schema.write_text(declared)
    return copy


@pytest.fixture(scope="module")
def run(product: Path) -> Run:
    """Runs the copy's command line."""

    def command(*args: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=product,
            env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(product)},
            check=False,
        )

    return command


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The demo recipe for the toy."""
    return recipe_file(
        tmp_path, **{"engine.backend": "toy", "engine.target": "h100", "engine.tp": 1, "engine.options": {}}
    )


def test_a_backend_in_a_folder_is_planned_with_its_settings_and_its_memory(
    run: Run, recipe: Path, tmp_path: Path
):
    done = run("--store", tmp_path / "store", "--json", "plan", recipe)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    engine = next(step for step in plan["steps"] if step["step"] == "engine")
    assert engine["what"].startswith("toy, batch ")
    assert {rank["context"] for rank in plan["fit"]["ranks"]} == {1 << 20}
    assert "engine.options.speed: as the recipe says" in plan["notes"]


def test_a_backend_in_a_folder_validates_its_options(run: Run, recipe: Path, tmp_path: Path):
    recipe.write_text(recipe.read_text().replace("options: {}", "options: {spede: 1}"))
    done = run("--store", tmp_path / "store", "plan", recipe)
    assert done.returncode == 2
    assert "engine.options.spede" in done.stderr
    assert "allowed: speed" in done.stderr


def test_a_backend_in_a_folder_gives_its_own_advice(run: Run, recipe: Path, tmp_path: Path):
    done = run("--store", tmp_path / "store", "-q", "lint", recipe)
    assert "faster" in done.stdout.split()


def test_an_exporter_in_a_file_is_listed(run: Run, tmp_path: Path):
    assert "|toy-server|" in run("export", "--help").stdout
    published.publish(published.ENGINE_WITH_DRAFT, tmp_path)
    done = run("--store", tmp_path / "store", "export", published.ENGINE_WITH_DRAFT.name, "--to", "none")
    assert "unknown target 'none'; have k8s, toy-server, triton, trtllm-serve, vllm" in done.stderr


def test_an_exporter_in_a_file_exports(run: Run, tmp_path: Path):
    store, record = published.publish(published.ENGINE_WITH_DRAFT, tmp_path)
    done = run(
        "--store", store.root, "export", record.reference, "--to", "toy-server", "--out", tmp_path / "out",
        "--set", "greeting=moin",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "serve.sh").read_text().endswith(f"echo moin from {record.reference}\n")
    assert (tmp_path / "out" / "engine" / "config.json").is_file()


def test_an_exporter_in_a_file_refuses_with_its_reason(run: Run, tmp_path: Path):
    store, record = published.publish(published.ENGINE_FP8_TP2, tmp_path)
    done = run(
        "--store", store.root, "export", record.reference, "--to", "toy-server", "--out", tmp_path / "out"
    )
    assert done.returncode == 2
    assert "it has several ranks" in done.stderr
