"""verify, repair and store, as people call them."""

import json
from pathlib import Path

import pytest

from artifacts import digest
from artifacts.registry.registry import Publication, open_registry
from artifacts.store import tuning_cache
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from tests.callables import Cli

SHARDED, ENGINE, OTHER = (digest.of_json(name) for name in ("sharded", "engine", "other"))
WEIGHTS = bytes(range(256)) * 40


def fill(store: LocalStore) -> LocalStore:
    """An engine that shares its weights with its sharded checkpoint, published, and one that is not."""
    trees = {
        SHARDED: {"rank0.safetensors": WEIGHTS},
        ENGINE: {"rank0.safetensors": WEIGHTS, "engine.json": b"{}"},
        OTHER: {"notes": b"n"},
    }
    for key, files in trees.items():
        with store.write(key, kind="engine", step={}, host={}) as draft:
            for name, content in files.items():
                (draft.path / name).write_bytes(content)
    return store


@pytest.fixture
def full(tmp_path: Path) -> LocalStore:
    store = fill(open_store(tmp_path / "store"))
    open_registry(store.registry_url).publish(
        Publication(
            name="demo/fp8",
            engine_key=ENGINE,
            recipe={},
            verdict="PASS",
            facts={},
            lineage={"engine": ENGINE, "sharded_checkpoint": SHARDED},
        )
    )
    return store


def corrupt(path: Path) -> None:
    """One bit of the file, which is read-only to prevent just that."""
    content = bytearray(path.read_bytes())
    content[5000 % len(content)] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_corrupted_byte_is_named_with_the_versions_that_have_it_and_repaired_from_a_pull(
    cli: Cli, full: LocalStore, tmp_path: Path
):
    at = ("--store", full.root)
    done = cli(*at, "verify", "--all")
    assert (
        done.returncode,
        "3 artifacts, 3 files, 10.2 kB: all files are intact" in done.stdout,
    ) == (
        0,
        True,
    )
    assert cli(*at, "pull", "demo/fp8", tmp_path / "pulled").returncode == 0
    corrupt(full.path(ENGINE) / "rank0.safetensors")
    done = cli(*at, "verify", "--all")
    assert done.returncode == 1
    assert "1 file of 3 damaged" in done.stderr
    assert "/rank0.safetensors (and 2 other names): sha256 " in done.stderr
    assert "in demo/fp8:1 (engine), demo/fp8:1 (sharded_checkpoint)" in done.stderr
    assert "hint: enginery store repair --all" in done.stderr
    done = cli(*at, "store", "repair", "--all")
    assert (done.returncode, "1 file still damaged" in done.stderr) == (1, True)
    done = cli(*at, "store", "repair", "--all", "--from", tmp_path / "pulled")
    assert done.returncode == 0, done.stderr
    assert "/rank0.safetensors: from the other copy" in done.stderr
    assert "3 files read, 1 damaged file repaired" in done.stdout
    assert cli(*at, "verify", "--all").returncode == 0


def test_one_version_is_repaired_from_another_store(cli: Cli, full: LocalStore, tmp_path: Path):
    fill(open_store(tmp_path / "other"))
    corrupt(full.path(ENGINE) / "engine.json")
    at = ("--store", full.root, "--json")
    done = cli(*at, "store", "repair", "demo/fp8", "--from", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["files"] == 2
    assert [one["how"] for one in answer["repaired"]] == ["from the other copy"]
    assert cli(*at, "verify", "demo/fp8").returncode == 0


def test_what_is_shared_is_shown_and_stores_of_early_versions_can_share(cli: Cli, full: LocalStore):
    at = ("--store", full.root, "--json")
    shown = json.loads(cli(*at, "store", "show").stdout)
    assert (shown["id"], shown["artifacts"]) == (full.id, 3)
    assert shown["listed_bytes"] - shown["held_bytes"] == len(WEIGHTS)
    alone = full.path(ENGINE) / "rank0.safetensors"
    alone.unlink()
    alone.write_bytes(WEIGHTS)
    assert json.loads(cli(*at, "store", "share").stdout) == {"freed_bytes": len(WEIGHTS), "damaged": []}
    assert alone.samefile(full.path(SHARDED) / "rank0.safetensors")


@pytest.mark.parametrize("command", ["verify", "store repair"])
@pytest.mark.parametrize("args", [(), ("demo/fp8", "--all")])
def test_either_a_version_or_all_is_asked_for(
    cli: Cli, full: LocalStore, command: str, args: tuple[str, ...]
):
    done = cli("--store", full.root, *command.split(), *args)
    assert (done.returncode, "--all for the whole store" in done.stderr) == (2, True)


def test_damage_in_what_builds_learned_is_named_and_repair_removes_it(cli: Cli, full: LocalStore):
    at, place = ("--store", full.root), full.root / "tuning" / digest.of_json({"tp": 1})
    engine = full.manifest(ENGINE)
    tuning_cache.keep(place, full.path(ENGINE), dict(engine.files), full.root / "staging")
    done = cli(*at, "verify", "--all")
    assert (done.returncode, "3 artifacts, 5 files" in done.stdout) == (0, True), done.stdout
    corrupt(place / engine.files["rank0.safetensors"].sha256)
    (place / "probe.so").write_bytes(b"ELF")
    done = cli(*at, "verify", "--all")
    assert done.returncode == 1
    assert "2 files of 5 damaged" in done.stderr
    assert f"tuning/{place.name}/probe.so: is not in the index" in done.stderr
    assert f"tuning/{place.name}/{engine.files['rank0.safetensors'].sha256}: sha256 " in done.stderr
    done = cli(*at, "--json", "store", "repair", "--all")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["repaired"]) == 2
    assert "removed: the next build learns it again" in done.stderr
    assert cli(*at, "verify", "--all").returncode == 0
    assert {path.name for path in place.iterdir()} == {"index.json", engine.files["engine.json"].sha256}
    (place / "index.json").unlink()
    assert "tuning/" in cli(*at, "verify", "--all").stderr
    assert cli(*at, "store", "repair", "--all").returncode == 0
    assert cli(*at, "verify", "--all").returncode == 0
