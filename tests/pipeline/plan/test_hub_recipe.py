"""A recipe that names a hub repository at a commit: planned from headers, downloaded once, with a token or not."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.store.opening import open_store
from pipeline.errors import BackendUnavailable, SourceError
from pipeline.plan.planning import plan_one
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from pipeline.step.step_parameters import SourcePlaces
from recipes.load import load
from tests import hub as hubs
from tests.callables import Cli
from tests.main_job import DEMO, write_recipe

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(scope="module")
def demo_hub() -> Iterator[hubs.Hub]:
    """The demo checkpoint on a hub."""
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    with hubs.serve({**files, "pytorch_model.bin": b"pickle"}) as hub:
        yield hub


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of that repository at its commit."""
    return write_recipe(
        tmp_path / "recipe.yaml", model__path=None, model__repo=hubs.REPO, model__revision=hubs.COMMIT
    )


def test_the_command_line_plans_a_hub_recipe_from_headers_alone(
    cli: Cli, demo_hub: hubs.Hub, recipe: Path, tmp_path: Path
):
    before = demo_hub.sent["model.safetensors"]
    done = cli("--store", tmp_path / "store", "--json", "plan", recipe, HF_ENDPOINT=demo_hub.address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["what"] == f"{hubs.REPO} @ {hubs.COMMIT[:12]}"
    weights = len(demo_hub.files["model.safetensors"])
    assert demo_hub.sent["model.safetensors"] - before < weights / 10


@pytest.mark.slow
def test_the_source_step_downloads_what_a_local_copy_would_hold(
    demo_hub: hubs.Hub, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.address)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    made = realize(plan_one(load(recipe)[0], site).step("source"), site, Listener())
    assert "pytorch_model.bin" not in made.manifest.files
    for name in made.manifest.files:
        assert (site.store.path(made.step.key) / name).read_bytes() == demo_hub.files[name], name
    assert any(token == f"Bearer {SECRET}" for _, token in demo_hub.tokens)
    assert not leaks(site.store.root)


def test_a_commit_whose_tensors_are_not_those_of_its_config_is_refused_by_its_name(
    cli: Cli, recipe: Path, tmp_path: Path
):
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    config = json.loads(files["config.json"])
    files["config.json"] = json.dumps(
        config | {"num_hidden_layers": config["num_hidden_layers"] + 1}
    ).encode()
    with hubs.serve(files) as hub:
        done = cli("--store", tmp_path / "store", "plan", recipe, HF_ENDPOINT=hub.address)
    assert done.returncode == 2
    said = f"model: {hubs.REPO}@{hubs.COMMIT[:12]}/config.json: num_hidden_layers is"
    assert said in done.stderr
    assert str(tmp_path / "store") not in done.stderr


def test_a_stale_index_of_a_commit_is_said(cli: Cli, recipe: Path, tmp_path: Path):
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    with hubs.serve(files | {"model.safetensors.index.json": b"{}"}) as hub:
        done = cli("--store", tmp_path / "store", "--json", "plan", recipe, HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(done.stdout)["notes"]
    assert note.startswith("model: model.safetensors.index.json not read: as in transformers")


def leaks(root: Path) -> list[Path]:
    """Files of a store that hold the token."""
    return [path for path in root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_hub_recipe_keyed_the_same_wherever_the_hub_is(
    demo_hub: hubs.Hub, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.address)
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    step = plan_one(load(recipe)[0], site).step("source")
    moved = dataclasses.replace(step, places=SourcePlaces(cache=Path("elsewhere"), endpoint="http://mirror"))
    assert step.key == moved.key


def test_a_hub_that_cannot_be_reached_is_said_to_be_so(cli: Cli, recipe: Path, tmp_path: Path):
    done = cli("--store", tmp_path / "store", "plan", recipe, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2
    assert hubs.REPO in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_a_tokenizer_on_the_hub_needs_is_known_before_it_is_fetched(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    del files["tokenizer.json"]
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # what an import of an absent package finds
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    with hubs.serve({**files, "tokenizer.model": b"pieces"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        with pytest.raises(BackendUnavailable, match="sentencepiece is not installed"):
            plan_one(load(recipe)[0], Site(store=open_store(tmp_path / "store"), host=probe()))
        assert hub.sent["tokenizer.model"] == 0


@pytest.mark.slow
def test_a_wrong_file_from_the_hub_stores_nothing(
    demo_hub: hubs.Hub, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.address)
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    step = plan_one(load(recipe)[0], site).step("source")
    demo_hub.faults["model.safetensors"] = [hubs.garble, hubs.garble]
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        realize(step, site, Listener())
    assert site.store.keys() == []
    demo_hub.faults.clear()
    assert not realize(step, site, Listener()).cached
