"""Recipes of the TensorRT-LLM backends from their source to a published version, with a contract toolchain."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from artifacts.manifest import is_cache
from tests.callables import Cli
from tests.contract import runtime
from tests.main_job import write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLAIN = {"format": "none", "calibration": None, "engine__target": "h100", "engine__max_seq_len": 128}


@pytest.mark.parametrize(("backend", "version"), [("trtllm_torch", "1.3.0rc15"), ("tensorrt", "0.16.0")])
def test_a_recipe_is_built_judged_and_published(backend: str, version: str, cli: Cli, tmp_path: Path):
    directory = runtime.toolchain(tmp_path / "trtllm", version)
    env: dict[str, Any] = {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}"}
    recipe = write_recipe(tmp_path / "recipe.yaml", name="test/x", engine__backend=backend, **PLAIN)
    store = tmp_path / "store"
    done = cli("--store", store, "--json", "run", recipe, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"]["outcome"] == "PASS"

    found = cli("--store", store, "--json", "find", "--backend", backend, **env)
    assert found.returncode == 0, found.stderr
    assert "test/x" in found.stdout
    elsewhere = cli("--store", store, "find", "--backend", backend)
    assert "needs 1 x NVIDIA H100 80GB HBM3; the host has" in elsewhere.stdout + elsewhere.stderr

    recipe.rename(tmp_path / "moved.yaml")  # a version has its recipe in itself
    again = cli("--store", store, "--json", "trust", "reproduce", "test/x:1", "--base", tmp_path, **env)
    assert again.returncode == 0, again.stdout
    *before, engine = json.loads(again.stdout)["stages"]
    assert [one["differences"] for one in before] == [[]] * len(before)
    assert not [one for one in engine["differences"] if one["matters"]]
    odd = [one["name"] for one in engine["differences"] if not is_cache(one["name"])]
    strict = cli("--store", store, "reproduce", "test/x:1", "--base", tmp_path, "--strict", **env)
    assert (strict.returncode, "every byte of the engine is as published" in strict.stdout) == (
        (1, False) if odd else (0, True)
    )
