"""Formats that TensorRT-LLM quantizes while it builds: the checkpoint that is made for it has the source's weights."""

import dataclasses
from pathlib import Path

import pytest

from artifacts.store.opening import open_store
from pipeline.plan.facts import gather
from pipeline.plan.plan import Plan, plan
from pipeline.toolchains.toolchain import Choice
from recipes.load import load
from tests.pipeline.engines.tensorrt.asked import H100, host, toolchain
from tests.pipeline.plans import TOOLS, recipe_file


@pytest.fixture
def planned(tmp_path: Path):
    """Plans the demo recipe for a backend with changes."""

    def make(backend, **changes) -> Plan:
        target = {} if backend == "aoti" else {"engine.target": "h100"}
        (loaded,) = load(recipe_file(tmp_path, **{"engine.backend": backend} | target | changes))
        here = dataclasses.replace(host(H100, H100), tools=TOOLS)
        facts = gather(loaded, here, open_store(tmp_path / "store"))
        return plan(loaded, dataclasses.replace(facts, choice=Choice(toolchain=toolchain("0.16.0"))))

    return make


def names(made):
    return [step.name for step in made.steps]


def test_int8_weights_come_from_the_source_for_tensorrt_llm_only(planned):
    ours, theirs = (planned(backend, format="int8_wo") for backend in ("aoti", "tensorrt"))
    assert "quantized_checkpoint" in names(ours)
    assert "quantized_checkpoint" not in names(theirs)
    sharded = theirs.step("sharded_checkpoint")
    assert sharded.inputs == {"checkpoint": theirs.step("source").key}
    assert (sharded.params.document()["format"], sharded.params.at_build) == ("int8_wo", True)
    assert sharded.size_bytes > ours.step("sharded_checkpoint").size_bytes
    assert "at_build" not in ours.step("sharded_checkpoint").params.document()


def test_what_is_quantized_before_stays_so_beside_them(planned):
    mixed = {"default": "fp8", "except": {"*.down_proj": "int8_wo"}}
    made = planned("tensorrt", format=mixed, kv_cache="fp8")
    quantized = made.step("quantized_checkpoint")
    assert quantized.params.document()["format"] == {"default": "fp8", "except": {"*.down_proj": "none"}}
    assert quantized.params.kv_cache == "fp8"
    assert made.step("sharded_checkpoint").params.document()["format"] == mixed


def test_other_formats_share_one_checkpoint_between_the_backends(planned):
    ours, theirs = (planned(backend, format="fp8") for backend in ("aoti", "tensorrt"))
    assert ours.step("sharded_checkpoint").inputs == theirs.step("sharded_checkpoint").inputs
    assert ours.step("sharded_checkpoint").params == theirs.step("sharded_checkpoint").params
