"""The command line: answers on stdout, the story on stderr, one exit code per kind of failure."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.command_table import COMMANDS, GROUPS, OLD_SPELLINGS
from pipeline.cli.main import enginery
from pipeline.errors import EXIT_CODES
from tests.callables import Cli
from tests.present import present

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "recipes" / "demo"


def command_of(*words: str) -> click.Command:
    """The command that these words call."""
    command: click.Command = enginery
    for word in words:
        assert isinstance(command, click.Group), words
        command = present(command.get_command(click.Context(enginery), word))
    return command


GROUPED = [(group, name) for group, one in GROUPS.items() for name in one.commands]


@pytest.mark.parametrize("words", [*((name,) for name in (*COMMANDS, *GROUPS)), *GROUPED], ids=" ".join)
def test_every_command_has_one_line_of_help_and_an_example(words):
    command = command_of(*words)
    text = present(command.help)
    assert text.splitlines()[0].endswith(".") or ";" in text.splitlines()[0]
    assert f"Example: enginery {' '.join(words)}" in re.sub(r" --(store|registry) \S+", "", text)


def test_the_first_screen_has_at_most_twenty_commands_and_names_each_group():
    shown = CliRunner().invoke(enginery, ["--help"]).stdout
    assert len(COMMANDS) <= 20
    assert re.findall(r"^  (\w[\w-]*) +[A-Z]", shown, re.MULTILINE) == [*COMMANDS, *GROUPS]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("old", OLD_SPELLINGS)
def test_an_old_spelling_is_the_same_command(old):
    assert command_of(old) is command_of(*OLD_SPELLINGS[old])
    assert old not in enginery.list_commands(click.Context(enginery))


def test_an_old_spelling_answers_as_the_new_one_and_names_it_once_on_stderr(cli: Cli, tmp_path: Path):
    at = ("--store", tmp_path / "s")
    old, new = cli(*at, "policy"), cli(*at, "registry", "policy")
    note = (
        "note: `enginery policy` is now `enginery registry policy`; the next release drops the old spelling\n"
    )
    assert (old.returncode, old.stdout, old.stderr) == (new.returncode, new.stdout, note + new.stderr)
    for option in ("--json", "--quiet"):
        old, new = cli(*at, option, "policy"), cli(*at, option, "registry", "policy")
        assert (old.returncode, old.stdout, old.stderr) == (new.returncode, new.stdout, new.stderr)


def test_help_imports_nothing_heavy(run_python: Callable[[str], str]):
    code = """
import sys
from click.testing import CliRunner
from pipeline.cli.main import enginery
result = CliRunner().invoke(enginery, ["--help"])
assert "Exit codes" in result.output
print(sorted({"pydantic", "rich", "yaml", "numpy", "torch", "prefect", "sqlalchemy"} & sys.modules.keys()))
assert "policy" in CliRunner().invoke(enginery, ["registry", "--help"]).output
print([name for name in sys.modules if name.startswith("pipeline.cli.commands")])
"""
    assert run_python(code).split() == ["[]", "[]"]


def test_plan_imports_neither_torch_nor_prefect_nor_sqlalchemy(
    run_python: Callable[[str], str], tmp_path: Path
):
    code = f"""
import sys
from click.testing import CliRunner
from pipeline.cli.main import enginery
result = CliRunner().invoke(enginery, ["--store", {str(tmp_path)!r}, "plan", "recipes/demo/fp8_tuned.yaml"])
assert result.exit_code == 0, result.output
print(sorted({{"torch", "prefect", "sqlalchemy", "transformers", "datasets"}} & sys.modules.keys()))
"""
    assert run_python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("pln x.yaml", "plan"),
        ("polcy prod", "registry policy"),
        ("serve-registy", "registry serve"),
        ("regstry", "registry"),
        ("share", "store share"),
        ("registry polici", "registry policy"),
        ("registry showw", "registry show"),
        ("registry gc", "store gc"),
        ("store promot", "promote"),
        ("store verify", "enginery verify"),
    ],
)
def test_a_mistyped_command_names_the_nearest(cli: Cli, typed: str, meant: str):
    done = cli(*typed.split())
    assert done.returncode == 2
    assert f"did you mean {meant!r}?" in done.stderr


def test_a_command_that_resembles_none_lists_those_there_are(cli: Cli):
    done = cli("store", "zzzzzz")
    assert done.returncode == 2
    assert "no such command 'zzzzzz' (have show, gc, repair, share)" in done.stderr


def test_plan_prints_one_json_document(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "--json", "plan", DEMO / "int4_awq_tp2.yaml")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["name"], answer["fit"], answer["lacking"]) == ("demo/int4_awq_tp2", None, [])
    assert answer["notes"] == []
    rows = answer["steps"]
    assert [row["status"] for row in rows] == ["run"] * 10
    assert all(re.fullmatch(r"[0-9a-f]{64}", row["key"]) for row in rows)


def test_quiet_prints_keys_only(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "-q", "plan", DEMO / "int4_awq_tp2.yaml")
    assert len(done.stdout.split()) == 10
    assert done.stderr == ""


def test_plan_shows_the_steps_before_it_says_what_this_host_lacks(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "plan", DEMO / "int4_awq_tp2.yaml", CXX="no-such-compiler")
    assert done.returncode == 4
    assert "aoti, batch 4, 512 tokens" in done.stdout
    assert "this host cannot build demo/int4_awq_tp2" in done.stderr
    assert "needs a C++ compiler" in done.stderr


def test_plan_counts_the_recipes_that_this_host_cannot_build(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "-q", "plan", DEMO / "stages.yaml", CXX="no-such-compiler")
    assert done.returncode == 4
    assert re.search(r"(\d+) of \1 recipes cannot be built on this host", done.stderr)


def test_run_refuses_what_plan_only_tells(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "run", DEMO / "int4_awq_tp2.yaml", CXX="no-such-compiler")
    assert done.returncode == 4
    assert done.stdout == ""


def test_plan_writes_nothing_but_what_it_remembers_of_files(cli: Cli, tmp_path: Path):
    cli("--store", tmp_path / "s", "plan", DEMO / "int4_awq_tp2.yaml")
    found = {p.name.partition(".")[0] for p in (tmp_path / "s").rglob("*") if p.is_file()}
    assert found <= {"digests", "tokenizers"}


def test_a_typo_in_a_recipe_exits_2_with_its_line(cli: Cli, tmp_path: Path):
    file = tmp_path / "bad.yaml"
    file.write_text((DEMO / "int4_awq_tp2.yaml").read_text().replace("format:", "fromat:"))
    done = cli("--store", tmp_path / "s", "run", file)
    assert done.returncode == 2
    assert "bad.yaml: 2 problems" in done.stderr
    assert re.search(r"^  \d+:1: fromat: unknown key; did you mean 'format'\?", done.stderr, re.MULTILINE)
    assert done.stdout == ""


def test_a_store_below_a_file_exits_2(cli: Cli, tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = cli("--store", tmp_path / "file" / "store", "run", DEMO / "int4_awq_tp2.yaml")
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path / 'file' / 'store'}: is below a path that is not a directory" in done.stderr


def test_an_unknown_store_scheme_exits_2(cli: Cli):
    done = cli("--store", "s3://bucket/x", "ls")
    assert done.returncode == 2
    assert "s3" in done.stderr


def test_an_unknown_version_exits_2(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "show", "nobody@prod")
    assert done.returncode == 2
    assert "nobody" in done.stderr


def test_an_empty_registry_lists_nothing_and_says_how_to_fill_it(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path, "ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert "enginery run" in done.stderr


def test_init_writes_a_recipe_that_loads_and_never_overwrites(cli: Cli, tmp_path: Path):
    file = tmp_path / "new.yaml"
    assert cli("init", file, "--name", "a/b").returncode == 0
    assert yaml.safe_load(file.read_text())["name"] == "a/b"
    assert cli("check", file).returncode == 0
    text = file.read_text()
    again = cli("init", file)
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert file.read_text() == text


def test_doctor_finds_this_host_ready(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "--json", "doctor")
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert rows["backend aoti"]["status"] == "ok"


def test_doctor_says_what_is_missing(cli: Cli, tmp_path: Path):
    done = cli("--store", tmp_path / "s", "doctor", CXX="no-such-compiler")
    assert done.returncode == 4
    assert "install g++" in done.stderr


def test_exit_codes_of_errors_are_the_documented_ones():
    assert set(EXIT_CODES.values()) <= {1, 2, 3, 4}


def test_verify_of_a_directory_that_was_not_pulled_is_refused(cli: Cli, tmp_path: Path):
    shutil.copytree(DEMO / "data", tmp_path / "d")
    done = cli("--store", tmp_path / "s", "verify", tmp_path / "d")
    assert done.returncode in (1, 2)
    assert "error:" in done.stderr
