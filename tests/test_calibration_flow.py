"""From a recipe's data to its checkpoint through the store, with the real pass; no engine is compiled."""

import json
from typing import Any

import pytest
from safetensors.torch import load_file

from artifacts.store.opening import open_store
from pipeline.plan.planning import plan_one
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from recipes.load import load
from tests.main_job import write_recipe

pytestmark = pytest.mark.slow

MEASURING = ["source", "calibration_set", "leakage", "statistics"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store that all recipes of this module share."""
    return Site(store=open_store(tmp_path_factory.mktemp("flow") / "store"), host=probe())


@pytest.fixture(scope="module")
def make(site: Site, tmp_path_factory: pytest.TempPathFactory):
    """Makes a recipe's steps up to one kind; returns kind -> the step's directory, and what was cached."""

    def made(last="quantized_checkpoint", **changes):
        (loaded,) = load(write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml", **changes))
        places, cached = {}, []
        for step in plan_one(loaded, site).steps:
            done = realize(step, site, Listener())
            places[step.kind] = site.store.path(step.key)
            cached += [step.kind] if done.cached else []
            if step.kind == last:
                return places, cached
        raise AssertionError(f"no {last} in the plan")

    return made


@pytest.fixture(scope="module")
def fp8(make):
    """The places of the fp8 recipe's steps."""
    return make()[0]


@pytest.mark.parametrize(
    "changes", [{"format": "int4_awq"}, {"format": "int8_sq", "kv_cache": "int8", "calibration__smoothing": 0.5}], ids=str
)  # fmt: skip
def test_another_format_is_derived_without_measuring_again(fp8, make, changes: dict[str, Any]):
    places, cached = make(**changes)
    assert cached == MEASURING
    assert {kind: places[kind] for kind in MEASURING} == {kind: fp8[kind] for kind in MEASURING}
    modules = json.loads((places["quantized_checkpoint"] / "coverage.json").read_text())["modules"]
    assert {one["actual"] for one in modules if one["intended"] != "source"} == {changes["format"]}


def test_modelopts_own_calibration_writes_the_same_fp8_checkpoint(fp8, make):
    places, cached = make(calibration__method="modelopt")
    assert cached == ["source", "calibration_set", "leakage"]
    assert "statistics" not in places
    ours, theirs = (load_file(found["quantized_checkpoint"] / "model.safetensors") for found in (fp8, places))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_rows_that_are_not_packed_are_measured_without_their_padding(make):
    places, _ = make(calibration__pack=False, calibration__seq_len=512)
    tokens = load_file(places["calibration_set"] / "tokens.safetensors")
    lengths = tokens["lengths"]
    assert 0 < lengths.min() < lengths.max() <= 512
    report = json.loads((places["statistics"] / "report.json").read_text())
    assert report["tokens"] == lengths.sum() < tokens["tokens"].numel()
    checkpoint = load_file(places["quantized_checkpoint"] / "model.safetensors")
    recorded = load_file(places["statistics"] / "layer-00000.safetensors")
    name = "model.layers.0.mlp.down_proj"
    assert checkpoint[f"{name}.input_scale"] == recorded[f"{name}.input_amax"].max() / 448


def test_an_eight_bit_cache_alone_is_measured_and_sharded(fp8, make):
    places, cached = make("sharded_checkpoint", format="none", kv_cache="fp8", engine__tp=2)
    assert cached == MEASURING
    config = json.loads((places["sharded_checkpoint"] / "config.json").read_text())
    assert config["quantization"] == {"quant_algo": None, "kv_cache_quant_algo": "FP8"}
    source = load_file(places["source"] / "model.safetensors")
    for rank in range(2):
        tensors = load_file(places["sharded_checkpoint"] / f"rank{rank}.safetensors")
        down = source["model.layers.0.mlp.down_proj.weight"].chunk(2, dim=1)[rank]
        assert tensors["transformer.layers.0.mlp.proj.weight"].equal(down)
        scales = [name for name in tensors if name.endswith("kv_cache_scaling_factor")]
        assert len(scales) == 4
        assert all(tensors[name] > 0 for name in scales)
        assert not any("weights_scaling_factor" in name for name in tensors)
