"""Engine steps of backend `tensorrt` in a real store: what stays, what is offered again, what leaves nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.store import tuning_cache
from artifacts.store.local import LocalStore
from pipeline.errors import BuildFailed
from pipeline.plan.facts import choose_toolchain
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step import Step
from pipeline.step.step_parameters import EngineParams, EnginePlaces
from pipeline.toolchains.toolchain import Choice
from recipes.load import load
from tests.contract.toolchain import behave, toolchain
from tests.pipeline.engines import trt
from tests.pipeline.engines.checkpoints import shard, source
from tests.pipeline.plans import recipe_file
from tests.present import present

pytestmark = pytest.mark.slow

KEYS = ("a" * 64, "b" * 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source checkpoint and its sharded one."""
    root = tmp_path_factory.mktemp("model")
    return source(root / "source"), shard(root / "source", 1, 1, root / "sharded")


@pytest.fixture
def site(tmp_path: Path, model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Site:
    """A store that holds the checkpoint under two keys, on a host whose nvidia-smi is the contract's."""
    store = LocalStore(tmp_path / "store")
    store.prepare()
    for key in KEYS:
        with store.write(key, kind="sharded_checkpoint", step={}, host={}) as draft:
            shutil.copytree(model[1], draft.path, dirs_exist_ok=True)
    root = toolchain(tmp_path / "trtllm")
    monkeypatch.setenv("PATH", str(root / "bin"), prepend=":")
    return Site(store=store, host=trt.HOST, timeout_s=60)


def step(site: Site, model: tuple[Path, Path], key: str) -> Step:
    work = trt.job(trt.found(site.store.root.parent / "trtllm"), *model)
    return Step(
        kind="engine",
        variant="tensorrt",
        inputs={"sharded_checkpoint": key},
        params=EngineParams.model_validate(work["params"]),
        places=EnginePlaces.model_validate_json(json.dumps(work["places"])),
    )


def test_what_one_build_timed_is_offered_to_the_next_of_the_same_settings(
    site: Site, model: tuple[Path, Path]
):
    first, second = (realize(step(site, model, key), site, Listener()) for key in KEYS)
    assert first.step.key != second.step.key
    report = trt.read(site.store.path(second.step.key), "tuning/build_report.json")
    assert report["timing_cache"] == {"reused": True, "reason": ""}
    assert "Timed 0 layers" in site.store.log(second.step.key).read_text()


class Heard(Listener):
    """Remembers what was remarked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def remarked(self, step, text) -> None:
        self.texts.append(text)


def test_a_damaged_timing_cache_is_said_once_and_kernels_are_timed_anew(site: Site, model: tuple[Path, Path]):
    heard = Heard()
    realize(step(site, model, KEYS[0]), site, heard)
    (place,) = tuning_cache.directories(site.store.root)
    cache = site.store.manifest(step(site, model, KEYS[0]).key).files["tuning/timing.cache"]
    damaged = place / cache.sha256
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * cache.size)
    made = realize(step(site, model, KEYS[1]), site, heard)
    (text,) = heard.texts
    assert f"left in {place} is not used: timing.cache: sha256 " in text
    report = trt.read(site.store.path(made.step.key), "tuning/build_report.json")
    assert report["timing_cache"] == {
        "reused": False, "reason": "no earlier build of these settings kept one"
    }  # fmt: skip
    site.store.remove(made.step.key)
    again = realize(step(site, model, KEYS[1]), site, heard)
    assert trt.read(site.store.path(again.step.key), "tuning/build_report.json")["timing_cache"]["reused"]
    assert heard.texts == [text]


def test_two_builds_of_one_engine_differ_in_nothing_but_times(
    site: Site, model: tuple[Path, Path], tmp_path: Path
):
    """Elsewhere, in another store; TensorRT's own kernels may differ on a GPU, the contract's cannot."""
    other = replace(site, store=LocalStore(tmp_path / "deeper" / "other"))
    for key in KEYS:
        with other.store.write(key, kind="sharded_checkpoint", step={}, host={}) as draft:
            shutil.copytree(model[1], draft.path, dirs_exist_ok=True)
    made = step(site, model, KEYS[0])
    first, second = (realize(made, one, Listener()).manifest.files for one in (site, other))
    assert outside_tuning(first) == outside_tuning(second)
    assert first["tuning/build_report.json"] != second["tuning/build_report.json"]


def outside_tuning(files):
    """Files of an engine whose bytes are its identity."""
    return {name: record for name, record in files.items() if "tuning" not in name.split("/")}


def test_a_build_that_fails_leaves_nothing_but_its_log(site: Site, model: tuple[Path, Path]):
    behave(site.store.root.parent / "trtllm", failing_rank=0)
    made = step(site, model, KEYS[0])
    with pytest.raises(BuildFailed, match="Could not find any implementation"):
        realize(made, site, Listener())
    assert not site.store.has(made.key)
    assert list((site.store.root / "staging").iterdir()) == []
    assert not (site.store.root / "tuning").exists()
    assert "Error Code 10" in site.store.log(made.key).read_text()


def test_a_recipe_gets_the_toolchain_that_it_names_and_others_none(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "toolchains.yaml"
    file.write_text(f"version: 1\ntoolchains:\n  old: {{environment: {tmp_path / 'trtllm'}}}\n")
    monkeypatch.setenv("ENGINERY_TOOLCHAINS", str(file))

    def choice(**changes) -> Choice:
        (loaded,) = load(recipe_file(tmp_path, **changes))
        return choose_toolchain(loaded.recipe, site.store)

    built = {"engine.backend": "tensorrt", "engine.options": {}}
    assert present(choice(**built, **{"engine.toolchain": "old"}).toolchain).version == "0.16.0"
    assert "no toolchain 'new'; have old" in choice(**built, **{"engine.toolchain": "new"}).problem
    assert present(choice(**built).toolchain).name == "old"
    assert choice() == type(choice())()
