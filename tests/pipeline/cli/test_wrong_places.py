"""Stores, registries and copies that are something else, and failures that had an answer; through the shell."""

import json
from pathlib import Path

import pytest

from artifacts.client import Client
from artifacts.registry.registry import open_registry
from artifacts.store.opening import open_store
from recipes.regular import FileRefused
from tests.callables import Ask, Cli
from tests.odd import places
from tests.pipeline.published import publication

DIRECTORIES = {
    "directory": "a directory",
    "file": "a file",
    "fifo": "a FIFO",
    "socket": "a socket",
    "/dev/zero": "a device",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places") / "odd"
    places(root)
    return root


@pytest.mark.parametrize("what", [*DIRECTORIES.keys() - {"directory"}, "file/below", "loop"])
def test_a_store_is_a_directory(odd: Path, what: str):
    said = f"is {DIRECTORIES[what]}; it must be a directory" if what in DIRECTORIES else "is below|is a link"
    with pytest.raises(FileRefused, match=said):
        open_store(odd / what)
    assert open_store(odd / "nothing").identity() is None  # first use


@pytest.mark.parametrize("what", [*DIRECTORIES.keys() - {"file"}, "/dev/null", "loop"])
@pytest.mark.parametrize("url", ["", "sqlite:///"])
def test_a_registry_is_a_file_in_a_directory_that_is_there(odd: Path, tmp_path: Path, url: str, what: str):
    where = f"{url}{odd / what}"
    said = (
        f"is {DIRECTORIES.get(what, 'a device')}; it must be a file" if what != "loop" else "leads to itself"
    )
    with pytest.raises(FileRefused, match=said):
        open_registry(where)
    with pytest.raises(FileRefused, match="there is no directory"):
        Client(tmp_path / "store", f"{url}{odd / 'nothing' / 'r.db'}")
    assert Client(tmp_path / "store", f"{url}{odd / 'r.db'}").names() == []


def test_the_shell_says_so_with_2(cli: Cli, odd: Path):
    for option, what, said in (
        ("--store", "fifo", "is a FIFO; it must be a directory"),
        ("--registry", "/dev/zero", "is a device; it must be a file"),
        ("--registry", "nothing/r.db", "there is no directory"),
    ):
        done = cli(option, odd / what, "ls", ENGINERY_STORE=str(odd / "nothing"))
        assert (done.returncode, said in done.stderr, done.stdout) == (2, True, ""), done.stderr


@pytest.mark.parametrize("what", ["directory", "file", "fifo", "nothing", ""])
def test_a_copy_that_is_no_store_is_refused_though_nothing_is_damaged(ask: Ask, odd: Path, what: str):
    code, _, err = ask("store", "repair", "--all", "--from", str(odd / what))
    assert code == 2
    assert "is neither a store nor a pulled directory" in err or "it must be a directory" in err


def test_a_failure_that_had_an_answer_is_an_error_with_the_answer_beside_it(
    cli: Cli, ask: Ask, tmp_path: Path
):
    registry = open_registry(tmp_path / "store" / "registry.db")
    registry.publish(publication("team/a"))
    calls = {
        "toolchains": cli(
            "--store", tmp_path / "s", "--json", "tools", "toolchains", XDG_CONFIG_HOME=str(tmp_path)
        ),
        "doctor": cli("--store", tmp_path / "s", "--json", "doctor", CXX="no-such-compiler"),
        "repair": cli("--store", tmp_path / "store", "--json", "store", "repair", "--all"),
    }
    with registry.database.writing() as db:
        db.exec_driver_sql("UPDATE version SET model = 'another'")
    calls["repair odd"] = cli("--store", tmp_path / "store", "--json", "store", "repair", "--all")
    for name, done in calls.items():
        document = json.loads(done.stdout)
        if done.returncode == 0:
            assert name == "repair"
            continue
        assert document["error"]["exit_code"] == done.returncode
        assert document["error"]["message"] in done.stderr
        assert "answer" in document, name
    assert (calls["toolchains"].returncode, json.loads(calls["toolchains"].stdout)["answer"]) == (4, [])
    assert calls["repair odd"].returncode == 1
