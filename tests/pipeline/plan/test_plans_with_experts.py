"""Recipes of models with experts: what is planned, and what is refused."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.store.opening import open_store
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.step.realize import Site
from pipeline.step.step import Step
from pipeline.toolchains.toolchain import Choice
from recipes.errors import RecipeError
from recipes.load import load
from tests.jobs import params_of, places_of
from tests.pipeline.engines import experts
from tests.pipeline.engines.tensorrt.asked import H100, host, toolchain
from tests.pipeline.plans import DEMO, HOST, planned, recipe_file


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty store on a host that is always the same."""
    return Site(store=open_store(tmp_path / "store"), host=HOST)


@pytest.fixture(scope="module", params=experts.FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with experts and the demo's tokenizer."""
    root = tmp_path_factory.mktemp(request.param) / "model"
    experts.source(root, request.param, max_position_embeddings=2048)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO / "model" / name, root / name)
    return root


def recipe(tmp_path, model, **changes) -> Path:
    return recipe_file(tmp_path, **({"model.path": str(model), "format": "fp8"} | changes))


def test_expert_ranks_are_part_of_the_layout_and_of_the_engine(model: Path, site: Site, tmp_path: Path):
    made = planned(recipe(tmp_path, model, **{"engine.tp": 2, "engine.ep": 2}), site)
    assert params_of(made.step("sharded_checkpoint")).ep == 2
    assert params_of(made.step("engine")).ep == 2
    assert made.shape.experts is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine.tp": 2, "engine.ep": 4}, "engine.ep: 4 does not divide engine.tp 2; choose one of 1, 2"),
        ({"format": "int4_awq"}, "format: 'int4_awq' is not built for experts"),
        (
            {"calibration.method": "modelopt"},
            "calibration.method: ModelOpt's own calibration would see experts",
        ),
        (
            {"format": {"default": "fp8", "except": {"*.experts.1.*": "none"}}},
            "runtimes fuse them, so give them one format",
        ),
        (
            {"format": {"default": "fp8", "except": {"*.expert.*": "none"}}},
            "'*.expert.*' matches no linear of the model's 2 layers",
        ),
    ],
)
def test_what_experts_cannot_have_is_refused(
    model: Path, site: Site, tmp_path: Path, change: dict[str, Any], said: str
):
    with pytest.raises(RecipeError) as caught:
        planned(recipe(tmp_path, model, **change), site)
    assert said in str(caught.value)


def test_a_model_without_experts_has_no_expert_ranks(site: Site, tmp_path: Path):
    with pytest.raises(
        RecipeError, match=r"engine.ep: 2 needs a model with experts, LlamaForCausalLM has none"
    ):
        planned(recipe_file(tmp_path, **{"engine.tp": 2, "engine.ep": 2}), site)


def test_a_pass_ends_at_a_dead_expert_only_where_its_ranges_are_needed(
    model: Path, site: Site, tmp_path: Path
):
    needed = planned(recipe(tmp_path, model, format="fp8"), site).step("statistics")
    weights = {"default": "fp8", "except": {"*expert*": "int8_wo"}}
    spared = planned(recipe(tmp_path, model, format=weights), site).step("statistics")
    assert (places_of(needed).every_expert, places_of(spared).every_expert) == (True, False)
    assert needed.key == spared.key


OLDER = {"mixtral": ("0.10", "0.11.0"), "qwen2_moe": ("0.15", "0.16.0")}
"""The last release with older names, and a version with the newest."""


def test_the_names_of_the_toolchain_s_release_are_part_of_the_layout(model: Path, tmp_path: Path):
    (loaded,) = load(recipe(tmp_path, model, **{"engine.backend": "tensorrt", "engine.target": "h100"}))
    facts = gather(loaded, host(H100), open_store(tmp_path / "store"))

    def sharded(version) -> Step:
        return plan(loaded, dataclasses.replace(facts, choice=Choice(toolchain=toolchain(version)))).step(
            "sharded_checkpoint"
        )

    last, newer = OLDER[model.parent.name.rstrip("0123456789")]
    assert params_of(sharded(f"{last}.0")).names == last
    assert params_of(sharded(newer)).names == "newest"
    assert sharded(newer).key == sharded("1.2.0").key != sharded(f"{last}.0").key
