"""What plan says of a model's tensors: the inputs that failed, and what is noted."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.store.opening import open_store
from pipeline.plan.facts import gather
from pipeline.plan.refusals import measuring, refusals
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from recipes.load import load
from tests.callables import Cli
from tests.cases import BASE, lay_out
from tests.pipeline.plans import HOST, draft_file

SAID = {
    "padded-embedding-sq": (
        "model.safetensors: model.embed_tokens.weight is [336, 128], config.json makes it [320, 128]",
        "model.safetensors: lm_head.weight is [336, 128], config.json makes it [320, 128]",
    ),
    "orig-mod-prefix": ("model.safetensors: 21 of 21 names begin with the foreign prefix '_orig_mod.'",),
    "fp8-source-sq": ("config.json: the checkpoint is quantized already",),
}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(store=open_store(tmp_path_factory.mktemp("store")), host=HOST)


@pytest.mark.parametrize("case", SAID)
def test_a_case_ends_at_plan_by_the_users_file(case: str, cli: Cli, tmp_path: Path):
    recipe = lay_out(case, tmp_path / "case")
    done = cli("--store", tmp_path / "store", "plan", recipe)
    assert done.returncode == 2
    said = [f"{tmp_path / 'case' / 'model'}/{text}" for text in SAID[case]]
    assert [text for text in said if text not in done.stderr] == []
    assert f": {len(said)} problem" in done.stderr
    ran = cli("--store", tmp_path / "store", "run", recipe)
    assert ran.returncode == 2
    assert ran.stderr == done.stderr
    assert list((tmp_path / "store").rglob("*.safetensors")) == []


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The base model with a recipe that this host lacks the toolchain for."""
    made = lay_out("orig-mod-prefix", tmp_path)
    shutil.copy(BASE / "model" / "model.safetensors", weights(made))
    return made


def weights(recipe: Path) -> Path:
    return recipe.parent / "model" / "model.safetensors"


def test_a_problem_of_the_tensors_is_told_with_those_of_the_recipe(tmp_path: Path, site: Site):
    file = lay_out("padded-embedding-sq", tmp_path)
    file.write_text(file.read_text().replace("max_seq_len: 128", "max_seq_len: 9999"))
    with pytest.raises(RecipeError) as caught:
        draft_file(file, site)
    assert "vocab_size 320" in str(caught.value)
    assert "engine.max_seq_len: 9999 is more than the model's" in str(caught.value)


def test_what_is_cast_and_what_is_not_read_are_notes_of_the_plan(recipe: Path, site: Site):
    file = weights(recipe)
    tensors = load_file(file)
    norms = {name: tensor.float() for name, tensor in tensors.items() if "norm" in name}
    odd = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    save_file({**tensors, **norms, **odd}, file)
    (file.parent / "model.safetensors.index.json").write_text("{}")
    (drafted,) = draft_file(recipe, site)
    assert [note for note in drafted.notes if note.startswith("model: ")] == [
        "model: model.layers.0.input_layernorm.weight and 4 more tensors are F32, cast to bfloat16 as "
        "config.json says",
        "model: model.layers.0.self_attn.rotary_emb.inv_freq is not read: config.json says it",
        "model: model.safetensors.index.json not read: as in transformers, weights are model.safetensors, and "
        "where there is none the files of model.safetensors.index.json; remove what is stale",
    ]


def test_weights_that_grow_as_they_are_cast_are_counted_as_they_will_be(recipe: Path, site: Site):
    (before,) = draft_file(recipe, site)
    config = recipe.parent / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}))
    (after,) = draft_file(recipe, site)
    assert after.plan.step("source").size_bytes == 2 * before.plan.step("source").size_bytes


def test_a_drafts_tensors_are_compared_too(recipe: Path, site: Site, tmp_path: Path):
    small = tmp_path / "small"
    shutil.copytree(recipe.parent / "model", small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    recipe.write_text(
        recipe.read_text()
        + "speculative: {mode: draft_tokens_external, max_draft_len: 4, draft: {path: ./small}}\n"
    )
    (loaded,) = load(recipe)
    told = refusals(loaded.recipe, gather(loaded, HOST, site.store)).recipe
    said = f"speculative.draft: {small}/config.json: num_hidden_layers is 3, the weights have 2 layers"
    assert any(problem.startswith(said) for problem in told)


def test_measuring_needs_the_tensors_too(tmp_path: Path, site: Site):
    (loaded,) = load(lay_out("padded-embedding-sq", tmp_path))
    told = measuring(loaded.recipe, gather(loaded, HOST, site.store)).recipe
    assert sum("vocab_size 320" in problem for problem in told) == 2


def test_a_configuration_alone_is_still_planned_but_not_one_of_a_quantized_model(tmp_path: Path, site: Site):
    file = lay_out("padded-embedding-sq", tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    (drafted,) = draft_file(file, site)
    assert any("holds config.json and no weights" in problem for problem in drafted.refusals.host)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {}}))
    with pytest.raises(RecipeError, match="quantized already"):
        draft_file(file, site)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda path: path.write_text("x"), "is a file"), (os.mkfifo, "is a FIFO")],
    ids=["file", "fifo"],
)
def test_a_model_that_is_no_directory_is_told_as_what_it_is(recipe: Path, site: Site, make, said: str):
    model = recipe.parent / "model"
    shutil.rmtree(model)
    make(model)
    with pytest.raises(RecipeError) as told:
        gather(load(recipe)[0], HOST, site.store)
    assert f"model: {model}: {said}; it must be a directory" in str(told.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_ends_at_plan(recipe: Path, site: Site, name: str):
    file = recipe.parent / "model" / name
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n")
    with pytest.raises(RecipeError) as told:
        gather(load(recipe)[0], HOST, site.store)
    assert f"model: {file}: is a Git LFS pointer and not the file; run `git lfs pull`" in str(told.value)
