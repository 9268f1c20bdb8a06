"""`enginery submit` before anything is sent: plans first, and knows when there is no server."""

from pathlib import Path

from tests.callables import Cli
from tests.cases import lay_out

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "demo" / "int4_awq_tp2.yaml"
NOWHERE = ("--server", "http://127.0.0.1:1")
"""Nobody listens on port 1."""


def test_a_recipe_with_a_typo_is_refused_before_anything_is_sent(cli: Cli, tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.read_text().replace("format:", "fromat:"))
    done = cli("--store", tmp_path, "submit", *NOWHERE, file)
    assert done.returncode == 2
    assert "did you mean 'format'?" in done.stderr
    assert "Prefect" not in done.stderr


def test_a_good_recipe_without_a_server_is_told_how_to_start_one(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "submit", *NOWHERE, RECIPE)
    assert done.returncode == 4
    assert "no Prefect server at http://127.0.0.1:1; start one with `enginery up`" in done.stderr
    assert done.stdout == ""


def test_waiting_for_a_run_that_is_not_started_is_a_usage_error(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "submit", "--wait", "--schedule-only", RECIPE)
    assert done.returncode == 2
    assert "--schedule-only starts none; choose one" in done.stderr


def test_what_this_host_lacks_is_a_warning_for_the_workers_host_counts(cli: Cli, tmp_path: Path):
    recipe = lay_out("schedule-never-runs", tmp_path / "case")  # for TensorRT-LLM, which is not here
    done = cli("--store", tmp_path / "store", "submit", *NOWHERE, "--schedule-only", recipe)
    warned, error = [line for line in done.stderr.splitlines() if line.startswith(("warning: ", "error: "))]
    assert warned.startswith("warning: this host cannot build pub/every-minute: backend tensorrt needs a Te")
    assert warned.endswith("; the worker's host must be able to")
    assert error.startswith("error: no Prefect server at http://127.0.0.1:1")
