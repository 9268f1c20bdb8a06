"""Recipes of backend `tensorrt`, planned as a whole."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.store.opening import open_store
from pipeline.engines.tensorrt.command import BuildRun, command
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.plan.refusals import refusals
from pipeline.toolchains.toolchain import Choice
from recipes.load import load
from tests.pipeline.engines.tensorrt.asked import H100, host, toolchain
from tests.pipeline.plans import TOOLS, keys, recipe_file


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Any]:
    """Plans the demo recipe for this backend with changes, or says what speaks against it."""

    def make(version="0.16.0", *, refused=False, **changes):
        (loaded,) = load(
            recipe_file(tmp_path, **{"engine.backend": "tensorrt", "engine.target": "h100"} | changes)
        )
        here = dataclasses.replace(host(H100, H100), tools=TOOLS)
        facts = gather(loaded, here, open_store(tmp_path / "store"))
        facts = dataclasses.replace(facts, choice=Choice(toolchain=toolchain(version)))
        found = refusals(loaded.recipe, facts)
        if refused:
            return found.recipe
        assert found == type(found)(recipe=(), host=())
        return plan(loaded, facts)

    return make


def test_the_engine_step_has_every_setting_and_the_toolchain_in_its_key(
    planned: Callable[..., Any], tmp_path: Path
):
    step = planned().step("engine")
    assert step.maker == "engine.tensorrt"
    assert step.inputs.keys() == {"sharded_checkpoint"}
    assert step.params.toolchain["versions"]["tensorrt_llm"] == "0.16.0"
    assert step.params.options["use_fused_mlp"] == "disable"
    cache = tmp_path / "cache"
    run = BuildRun(checkpoint=tmp_path, out=tmp_path, timing_cache=cache, input_cache=cache, workers=1)
    words = command(EngineSettings.parse(step.params.options), run)
    assert words[words.index("--nccl_plugin") + 1] == "bfloat16"  # two ranks of the demo model
    assert step.places.toolchain.location == "/opt/bin"


def test_another_version_is_another_engine_from_the_same_checkpoint(planned: Callable[..., Any]):
    old, late = keys(planned()), keys(planned("0.17.0"))
    assert old["sharded_checkpoint"] == late["sharded_checkpoint"]
    assert old["engine"] != late["engine"]


def test_an_option_that_changes_nothing_leaves_the_key_alone(planned: Callable[..., Any]):
    plain = keys(planned())["engine"]
    assert keys(planned(**{"engine.options": {"use_fused_mlp": True}}))["engine"] == plain
    assert keys(planned(**{"engine.options": {"gemm_plugin": "auto"}}))["engine"] != plain


def test_a_search_over_the_backends_options_is_a_point_each(planned: Callable[..., Any]):
    space = {
        "tune": {
            "space": {"options.max_num_tokens": [1024, 2048], "options.multiple_profiles": [True, False]}
        }
    }
    made = planned(**space)
    asked = [(trial.engine.params.options["max_num_tokens"], trial.engine.params.options["multiple_profiles"])
             for trial in made.trials]  # fmt: skip
    assert set(asked) == {(1024, "enable"), (1024, "disable"), (2048, "enable"), (2048, "disable")}


def test_mistakes_in_options_are_told_with_the_versions_that_have_them(planned: Callable[..., Any]):
    (said,) = planned(refused=True, **{"engine.options": {"builder_opt": 3}})
    assert said.startswith("engine.options.builder_opt: was removed in TensorRT-LLM 0.14.0.dev2024100800")
    assert said.endswith("found 3")
    (said,) = planned(refused=True, **{"engine.options": {"gather_context_logits": False}})
    assert said.startswith("engine.options.gather_context_logits: is always on")
