"""What the README says is so: commands, recipe, tree and links."""

import re
from pathlib import Path

import yaml

from pipeline.cli.command_table import COMMANDS, GROUPS
from recipes.load import load
from tests.readme import ROOT, with_tree

README = (ROOT / "README.md").read_text()


def test_every_command_is_in_the_readme_and_every_one_in_it_exists():
    said = set(re.findall(r"`enginery ([\w-]+)", README)) | set(
        re.findall(r"^\$ enginery (?:--\w+ \S+ )*([\w-]+)", README, re.MULTILINE)
    )
    assert said <= COMMANDS.keys() | GROUPS.keys()
    assert all(re.search(rf"`(enginery )?{name}\b", README) for name in (*COMMANDS, *GROUPS))


def test_the_recipe_in_the_readme_loads(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL).group(1)
    file = tmp_path / "recipe.yaml"
    file.write_text(block)
    (loaded,) = load(file)
    shipped = yaml.safe_load((ROOT / "recipes" / "demo" / "int4_awq_tp2.yaml").read_text())
    assert loaded.recipe.name == shipped["name"]
    assert yaml.safe_load(block)["gate"] == shipped["gate"]


def test_the_tree_is_of_today():
    assert with_tree(README) == README, "run `python -m tests.readme`"


def test_files_that_the_readme_names_exist():
    named = re.findall(r"[`(]((?:recipes|artifacts|calibration|pipeline|tests)/[\w/.-]+\.\w+)[`)]", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)`", README)) | set(
        re.findall(r"^\$ make (\w+)", README, re.MULTILINE)
    )
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_there_is_no_path_of_one_machine_in_the_readme():
    assert not re.search(r"/(work|root|home)/", README)
    assert Path(ROOT / "LICENSE").exists()
