"""Toolchains are found, asked once, and named when a recipe cannot have one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BackendUnavailable
from pipeline.toolchains.discovery import choose, discover, matching
from pipeline.toolchains.toolchain import Toolchain
from recipes.errors import RecipeError
from tests.callables import Cli
from tests.contract.toolchain import toolchain

pytestmark = pytest.mark.slow

NO_TOOLS = {"PATH": "/nonexistent"}


def declare(tmp_path: Path, text: str) -> dict[str, str]:
    """Writes the declaring file; returns an environment that names it."""
    (tmp_path / "toolchains.yaml").write_text(text)
    return {**NO_TOOLS, "ENGINERY_TOOLCHAINS": str(tmp_path / "toolchains.yaml")}


def environment(name: str, root: Path) -> str:
    return f"version: 1\ntoolchains:\n  {name}: {{environment: {root}}}\n"


def known(name: str, version: str = "0.16.0", problem: str = "") -> Toolchain:
    versions = {"tensorrt_llm": version, "tensorrt": "10.7.0"}
    return Toolchain(name=name, kind="environment", location="/x", versions=versions, problem=problem)


def test_a_declared_environment_tells_its_versions(tmp_path: Path) -> None:
    toolchain(tmp_path / "env", "0.16.0")
    (found,) = discover(tmp_path / "store", declare(tmp_path, environment("old", Path("env"))))
    assert (found.name, found.kind, found.problem) == ("old", "environment", "")
    assert found.versions["tensorrt_llm"] == "0.16.0"
    assert found.versions["tensorrt"] == "10.7.0"
    assert found.versions["torch"] == "2.5.1"
    assert found.versions["cuda"] == "12.6.3"
    assert found.argv("trtllm-build")[0] == str(tmp_path / "env" / "bin" / "trtllm-build")


def test_programs_on_path_run_with_the_python_of_their_first_line(tmp_path: Path) -> None:
    root = toolchain(tmp_path / "env", "1.2.0")
    (root / "bin" / "nothing").touch()
    (found,) = discover(None, {"PATH": str(root / "bin"), "HOME": str(tmp_path)})
    assert (found.name, found.kind) == ("path", "path")
    assert found.version == "1.2.0"
    assert found.argv("python")[0] == str(root / "bin" / "python")


def test_a_declared_environment_on_path_is_one_toolchain(tmp_path: Path) -> None:
    root = toolchain(tmp_path / "env")
    env = declare(tmp_path, environment("old", root)) | {"PATH": str(root / "bin")}
    assert [one.name for one in discover(None, env)] == ["old"]


def test_a_second_look_asks_nobody(tmp_path: Path) -> None:
    root = toolchain(tmp_path / "env")
    env = declare(tmp_path, environment("old", root))
    discover(tmp_path / "store", env)
    remembered = tmp_path / "store" / "toolchains.json"
    entries = json.loads(remembered.read_text())
    next(iter(entries.values()))["versions"]["tensorrt_llm"] = "remembered"
    remembered.write_text(json.dumps(entries))
    assert discover(tmp_path / "store", env)[0].version == "remembered"


def test_another_version_in_the_same_environment_is_noticed(tmp_path: Path) -> None:
    root = toolchain(tmp_path / "env")
    env = declare(tmp_path, environment("old", root))
    discover(tmp_path / "store", env)
    info = next(root.glob("lib/*/site-packages/tensorrt_llm-*"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 0.17.0\n")
    info.rename(info.with_name("tensorrt_llm-0.17.0.dist-info"))
    assert discover(tmp_path / "store", env)[0].version == "0.17.0"


def test_a_damaged_memory_only_costs_another_look(tmp_path: Path) -> None:
    env = declare(tmp_path, environment("old", toolchain(tmp_path / "env")))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "toolchains.json").write_text('{"cut')
    assert discover(tmp_path / "store", env)[0].version == "0.16.0"


def test_an_environment_whose_tensorrt_llm_is_half_removed_says_so(tmp_path: Path) -> None:
    root = toolchain(tmp_path / "env")
    next(root.glob("lib/*/site-packages/tensorrt_llm-*/METADATA")).unlink()
    (found,) = discover(None, declare(tmp_path, environment("bare", root)))
    assert found.problem.startswith("its Python has no tensorrt_llm; install")
    assert "bare" in choose([found], "bare").problem


def test_a_directory_that_is_no_environment_says_what_is_missing(tmp_path: Path) -> None:
    (found,) = discover(None, declare(tmp_path, environment("gone", tmp_path / "gone")))
    assert found.problem == f"{tmp_path / 'gone'} has no bin/python; correct {tmp_path / 'toolchains.yaml'}"


def test_an_image_that_is_not_here_names_the_command_that_gets_it(tmp_path: Path) -> None:
    text = "version: 1\ntoolchains:\n  new: {image: 'registry/trtllm:1.0', runtime: docker}\n"
    (found,) = discover(None, declare(tmp_path, text))
    assert "run `docker pull registry/trtllm:1.0`" in found.problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version: 1\ntoolchains:\n  a: {enviroment: /x}\n", "3:7: toolchains.a.enviroment: unknown key"),
        ("version: 2\ntoolchains:\n  a: {environment: /x}\n", "1:1: version: 2 is not allowed"),
        ("version: 1\ntoolchains:\n  a: {}\n", "give one of the two keys"),
        ("version: 1\ntoolchains:\n  a: {image: x}\n", "image and runtime belong together"),
        ("version: 1\ntoolchains:\n  a: {image: x, runtime: lxc}\n", "'lxc' is not allowed"),
        ("version: 1\ntoolchains:\n  path: {environment: /x}\n", "is the name of what is found on PATH"),
        ("version: 1\n", "toolchains: is required"),
        ("- a\n", "1:1: a list of toolchains is a mapping"),
    ],
)
def test_mistakes_in_the_file_are_told_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        discover(None, declare(tmp_path, text))
    assert told in str(caught.value)


def test_a_file_that_the_variable_names_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file; correct ENGINERY_TOOLCHAINS"):
        discover(None, {**NO_TOOLS, "ENGINERY_TOOLCHAINS": str(tmp_path / "none.yaml")})


def test_a_host_without_any_has_none(tmp_path: Path) -> None:
    assert discover(None, {**NO_TOOLS, "HOME": str(tmp_path)}) == ()
    assert choose((), None).problem.startswith("no TensorRT-LLM: none is on PATH")


def test_the_only_working_one_needs_no_name() -> None:
    assert choose([known("a"), known("b", problem="broken")], None).toolchain == known("a")


def test_of_several_one_has_to_be_named() -> None:
    found = [known("a"), known("b", "1.0.0")]
    assert choose(found, None).problem == (
        "several toolchains: a (0.16.0), b (1.0.0); name one of them with engine.toolchain"
    )
    assert choose(found, "b").toolchain == found[1]


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert choose([known("a")], "c").problem == ("no toolchain 'c'; have a (see `enginery tools toolchains`)")


def test_an_engine_needs_the_versions_that_built_it() -> None:
    found = [known("a"), known("b", "1.0.0")]
    assert matching({"tensorrt_llm": "1.0.0", "tensorrt": "10.7.0", "torch": "2"}, found) == found[1]
    with pytest.raises(BackendUnavailable, match=r"no toolchain with tensorrt_llm 1.0.0, tensorrt 10.8.0 on"):
        matching({"tensorrt_llm": "1.0.0", "tensorrt": "10.8.0"}, found)


def test_the_command_lists_versions_and_problems(cli: Cli, tmp_path: Path) -> None:
    text = environment("old", toolchain(tmp_path / "env")) + "  gone: {environment: gone}\n"
    env: dict[str, Any] = declare(tmp_path, text) | {"PATH": os.environ["PATH"]}
    done = cli("--store", tmp_path / "store", "--json", "tools", "toolchains", **env)
    assert done.returncode == 0, done.stderr
    old, gone = json.loads(done.stdout)
    assert (old["name"], old["tensorrt_llm"], old["problem"]) == ("old", "0.16.0", None)
    assert "no bin/python" in gone["problem"]


def test_doctor_names_each_toolchain_and_a_broken_one_stops_nothing_else(cli: Cli, tmp_path: Path) -> None:
    text = environment("old", toolchain(tmp_path / "env")) + "  gone: {environment: gone}\n"
    env: dict[str, Any] = declare(tmp_path, text) | {"PATH": os.environ["PATH"]}
    done = cli("--store", tmp_path / "store", "--json", "doctor", **env)
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert rows["toolchain old"]["found"] == "TensorRT-LLM 0.16.0"
    assert rows["toolchain gone"]["status"] == "broken"
    assert "toolchain" not in done.stderr


def test_the_command_says_what_to_do_without_any(cli: Cli, tmp_path: Path) -> None:
    done = cli("--store", tmp_path / "store", "tools", "toolchains", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 4
    assert f"in {tmp_path}/enginery/toolchains.yaml" in done.stderr
