"""A store on a disk that is full to the last byte, used as people use it: nothing is a dead end."""

import json
import subprocess  # noqa: TID251 copies a store with its links
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.registry.registry import open_registry
from tests.callables import Cli
from tests.disks import fill, mounted
from tests.pipeline.published import publication

EAGER = ("--keep-last", "0", "--min-age", "0", "--litter", "0", "--drop-lineage")


@pytest.fixture
def full(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> Iterator[Path]:
    """A copy of a store with one published version, without a free byte beside it."""
    with mounted(tmp_path / "disk", "96m") as disk:
        subprocess.run(["cp", "-a", str(built[0] / "store"), str(disk / "store")], check=True)
        fill(disk / "ballast")
        yield disk / "store"


@pytest.mark.slow
def test_a_full_store_is_run_again_pulled_from_and_collected(
    full: Path, built: tuple[Path, dict[str, Any]], cli: Cli, tmp_path: Path
):
    root, before = built
    again = cli("--store", full, "--json", "run", root / "recipe.yaml")
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    assert [step["digest"] for step in answer["steps"]] == [step["digest"] for step in before["steps"]]
    assert answer["version"] == before["version"]
    pulled = cli("--store", full, "pull", "test/mixed@candidate", tmp_path / "engine")
    assert pulled.returncode == 0, pulled.stderr
    assert cli("verify", tmp_path / "engine").returncode == 0
    fill(full.parent / "more")
    promoted = cli("--store", full, "promote", "test/mixed:1", "prod")
    assert promoted.returncode == 0, promoted.stderr
    swept = cli("--store", full, "--json", "store", "gc", "--yes", *EAGER)
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout)["freed_bytes"] > 10_000_000
    assert cli("--store", full, "verify", "--all").returncode == 0
    assert len(list((full / "reserve").iterdir())) == 16


@pytest.mark.slow
def test_a_build_on_a_full_disk_says_which_disk_and_how_much_more_it_needs(
    full: Path, built: tuple[Path, dict[str, Any]], cli: Cli, tmp_path: Path
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((built[0] / "recipe.yaml").read_text().replace("max_seq_len: 256", "max_seq_len: 192"))
    done = cli("--store", full, "run", recipe)
    assert done.returncode == 4
    assert (
        "GB more there (`enginery store gc --dry-run` shows what can go), or choose another --store"
        in done.stderr
    )
    assert "delete it" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_that_nobody_thought_of_is_no_bug_and_leaves_no_half_of_a_key(cli: Cli, tmp_path: Path):
    with mounted(tmp_path / "disk", "1m") as disk:
        fill(disk / "ballast")
        done = cli("trust", "keygen", disk / "key", "--no-passphrase")
        assert done.returncode == 4, done.stderr
        assert "disk full: [Errno 28] No space left on device; bytes free: " in done.stderr.replace("\n", " ")
        assert "Traceback" not in done.stderr
        assert [one.name for one in disk.iterdir()] == ["ballast"]


def test_a_registry_on_a_full_disk_of_its_own_is_named_as_the_one_that_is_full(cli: Cli, tmp_path: Path):
    with mounted(tmp_path / "disk", "1m") as disk:
        registry = f"sqlite:///{disk}/registry.db"
        open_registry(registry).publish(publication("demo/fp8"))
        fill(disk / "ballast")
        done = cli("--store", tmp_path / "store", "--registry", registry, "promote", "demo/fp8:1", "prod")
        assert done.returncode == 4, done.stderr
        said = f"the registry {registry} cannot be written: 0 bytes are free at {disk}, on the disk mounted at {disk}"
        assert said in done.stderr.replace("\n", " ")
