"""Options of `enginery` itself, and of the commands that begin with a recipe."""

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.store.opening import open_store
from tests.callables import Ask, Cli
from tests.main_job import DEMO, write_recipe


def test_the_version_is_that_of_the_package(ask: Ask):
    assert ask("--version")[1].split()[-1] == importlib.metadata.version("enginery")


def test_colour_is_for_terminals_and_not_where_nobody_wants_it(cli: Cli, tmp_path: Path):
    call = ("--store", tmp_path, "check", DEMO / "int4_awq_tp2.yaml")
    assert "\x1b[" not in cli(*call).stdout
    coloured = cli("--store", tmp_path, "ls", "nobody", FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[31merror:\x1b[0m" in coloured.stderr
    calls: list[tuple[list[str], dict[str, Any]]] = [(["--no-color"], {}), ([], {"NO_COLOR": "1"})]
    for option, env in calls:
        plain = cli(*option, "--store", tmp_path, "ls", "nobody", FORCE_COLOR="1", TERM="xterm", **env)
        assert (plain.returncode, "\x1b[31m" in plain.stderr, "error:" in plain.stderr) == (2, False, True)


def test_the_environment_names_store_and_registry_and_options_come_first(cli: Cli, tmp_path: Path):
    env: dict[str, Any] = {
        "ENGINERY_STORE": str(tmp_path / "a"),
        "ENGINERY_REGISTRY": f"sqlite:///{tmp_path / 'r.db'}",
    }
    assert json.loads(cli("--json", "registry", "init", **env).stdout)["registry"].endswith("/r.db")
    assert json.loads(cli("--json", "store", "show", **env).stdout)["store"] == str(tmp_path / "a")
    shown = cli(
        "--json", "--store", tmp_path / "b", "--registry", tmp_path / "s.db", "registry", "show", **env
    )
    assert json.loads(shown.stdout)["registry"].endswith("/s.db")
    shown = cli("--json", "--store", tmp_path / "b", "store", "show", **env)
    assert json.loads(shown.stdout)["store"] == str(tmp_path / "b")


def test_a_first_recipe_names_the_model_and_plans_with_data_beside_it(ask: Ask, tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    assert ask("init", str(file), "--model", str(DEMO / "model"), "--name", "a/b")[0] == 0
    document = yaml.safe_load(file.read_text())
    assert (document["model"]["path"], document["name"]) == (str(DEMO / "model"), "a/b")
    for name, source in (("calibration", "calibration"), ("heldout", "gate")):
        (tmp_path / f"{name}.jsonl").symlink_to(DEMO / "data" / f"{source}.jsonl")
    code, out, err = ask("--json", "plan", str(file))
    assert (code, len(json.loads(out)["steps"])) == (0, 10), err


def test_a_dry_run_says_what_plan_says_and_makes_nothing(ask: Ask, tmp_path: Path):
    recipe = str(DEMO / "int4_awq_tp2.yaml")
    planned, dry = ask("--json", "plan", recipe)[1], ask("--json", "run", "--dry-run", recipe)[1]
    assert json.loads(dry) == json.loads(planned)
    assert open_store(tmp_path / "store").keys() == []


@pytest.mark.slow
def test_a_step_that_takes_longer_than_it_may_ends_the_run_with_1(cli: Cli, tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe.yaml")
    done = cli("--store", tmp_path / "store", "run", recipe, "--step-timeout", "0.00001")
    assert done.returncode == 1, done.stderr
    assert re.search(r"source \w+ failed: still running after 0\.036 s", done.stderr)
    assert open_store(tmp_path / "store").keys() == []
