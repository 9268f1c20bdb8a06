"""Speculative decoding in plans: the draft model's steps, what they share, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from pipeline.checkpoint.named import source_tensors
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from pipeline.models.vocabulary import require_same, vocabulary
from pipeline.plan import speculation
from pipeline.plan.facts import gather
from pipeline.plan.plan import Plan, plan
from pipeline.plan.refusals import refusals
from pipeline.run.publish import lineage
from pipeline.step.step_parameters import Proposals
from recipes.errors import RecipeError
from recipes.load import load
from tests.jobs import params_of, places_of
from tests.pipeline.plans import DEMO, HOST, recipe_file


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store")


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A directory with the demo model's tokenizer and a smaller model's headers."""
    return smaller(tmp_path / "draft")


def smaller(directory, **change):
    directory.mkdir()
    config = json.loads((DEMO / "model" / "config.json").read_text()) | {
        "num_hidden_layers": 2,
        "dtype": "float16",
    }
    config |= change
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "model" / name, directory)
    sizes = source_tensors(read_shape(config)).items()
    save_file({name: np.zeros(size, np.float16) for name, size in sizes}, directory / "model.safetensors")
    return directory


def planned(tmp_path, store, draft, **changes):
    """Recipe and facts, with `speculative.*` and other dotted keys changed."""
    asked = {"mode": "draft_tokens_external", "max_draft_len": 4, "draft": {"path": str(draft)}}
    for dotted in [name for name in changes if name.startswith("speculative.")]:
        asked[dotted.removeprefix("speculative.")] = changes.pop(dotted)
    (loaded,) = load(recipe_file(tmp_path, speculative=asked, **changes))
    return loaded, gather(loaded, HOST, store)


def steps(tmp_path, store, draft, **changes) -> Plan:
    return plan(*planned(tmp_path, store, draft, **changes))


def test_the_draft_model_is_sharded_like_the_target_and_the_engine_reads_both(
    tmp_path: Path, store: LocalStore, draft: Path
):
    made = steps(tmp_path, store, draft)
    names = [step.name for step in made.steps]
    assert names == [
        "source", "calibration_set", "leakage", "statistics", "quantized_checkpoint", "sharded_checkpoint",
        "draft_source", "draft_sharded_checkpoint", "engine", "measurement", "baseline", "evaluation",
    ]  # fmt: skip
    own, proposed = made.step("sharded_checkpoint"), made.step("draft_sharded_checkpoint")
    engine = made.step("engine")
    assert engine.inputs == {"sharded_checkpoint": own.key, "draft_checkpoint": proposed.key}
    assert params_of(engine).speculative == Proposals(mode="draft_tokens_external", max_draft_len=4)
    twin = own.size_bytes
    assert engine.size_bytes == own.size_bytes + proposed.size_bytes + twin
    assert (
        (params_of(proposed).tp, params_of(proposed).pp) == (params_of(own).tp, params_of(own).pp) == (2, 1)
    )
    assert proposed.params.document()["format"] == "none"
    assert proposed.inputs["target"] == own.inputs["checkpoint"]
    assert places_of(made.step("source")).path.name == "model"
    assert places_of(made.step("draft_source")).path == draft


@pytest.mark.parametrize(
    ("fmt", "added"),
    [
        ("int8_wo", ["draft_quantized_checkpoint"]),
        ("fp8", ["draft_calibration_set", "draft_statistics", "draft_quantized_checkpoint"]),
    ],
)
def test_a_quantized_draft_is_calibrated_on_the_recipes_data_where_it_must_be(
    tmp_path: Path, store: LocalStore, draft: Path, fmt: str, added: list[str]
):
    made = steps(tmp_path, store, draft, **{"speculative.draft_format": fmt})
    names = [step.name for step in made.steps if step.role]
    assert names == ["draft_source", *added, "draft_sharded_checkpoint"]
    checkpoint = made.step("draft_quantized_checkpoint")
    assert checkpoint.params.document()["format"] == fmt
    assert params_of(checkpoint).kv_cache == "auto"
    assert checkpoint.inputs["source"] == made.step("draft_source").key


def test_nothing_of_a_published_pair_is_lost(tmp_path: Path, store: LocalStore, draft: Path):
    made = steps(tmp_path, store, draft)
    keys = lineage(made)
    assert len(keys) == len(made.steps)
    assert set(keys.values()) == {step.key for step in made.steps}
    assert keys["source"] != keys["draft_source"]


def test_keys_without_speculation_do_not_move_and_with_it_only_the_engines_do(
    tmp_path: Path, store: LocalStore, draft: Path
):
    (loaded,) = load(recipe_file(tmp_path))
    alone = {step.name: step.key for step in plan(loaded, gather(loaded, HOST, store)).steps}
    pair = {step.name: step.key for step in steps(tmp_path, store, draft).steps}
    assert {name for name in alone if alone[name] != pair[name]} == {"engine", "measurement", "evaluation"}


def test_lookahead_needs_no_draft(tmp_path: Path, store: LocalStore):
    made = planned(
        tmp_path, store, "", **{"speculative.mode": "lookahead_decoding", "speculative.draft": None}
    )
    assert speculation.reasons(made[0].recipe, made[1]) == []
    assert not [step for step in plan(*made).steps if step.role]


def said(tmp_path, store, draft, **changes) -> list[str]:
    loaded, facts = planned(tmp_path, store, draft, **changes)
    found = speculation.reasons(loaded.recipe, facts)
    assert set(found) <= set(refusals(loaded.recipe, facts).recipe)
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"draft": None}, "speculative.draft: draft_tokens_external needs a smaller model"),
        ({"mode": "lookahead_decoding"}, "speculative.draft: lookahead_decoding proposes tokens by itself"),
        ({"mode": "medusa", "draft": None}, "speculative.draft: medusa needs heads of the model; add"),
        ({"mode": "eagle", "draft": None}, "speculative.draft: eagle needs heads of the model; add"),
        ({"max_draft_len": 512}, "speculative.max_draft_len: 512 leaves nothing of engine.max_seq_len"),
    ],
)
def test_modes_that_cannot_be_are_refused(
    tmp_path: Path, store: LocalStore, draft: Path, change: dict[str, Any], told: str
):
    found = said(tmp_path, store, draft, **{f"speculative.{name}": value for name, value in change.items()})
    assert any(one.startswith(told) for one in found), found


def test_a_format_without_a_draft_is_refused(tmp_path: Path, store: LocalStore):
    (told,) = said(
        tmp_path, store, "",
        **{"speculative.mode": "lookahead_decoding", "speculative.draft": None, "speculative.draft_format": "fp8"},
    )  # fmt: skip
    assert told == "speculative.draft_format: 'fp8' is for a draft model, and there is none"


def test_a_calibrated_draft_needs_data(tmp_path: Path, store: LocalStore, draft: Path):
    change = {"speculative.draft_format": "fp8", "format": "none", "calibration": None}
    (told,) = said(tmp_path, store, draft, **change)
    assert told.startswith("speculative.draft_format: 'fp8' has calibrated scales; add 'calibration'")
    searched = {"speculative.draft_format": "int4_awq", "format": "fp8", "calibration.statistics": "ranges"}
    (told,) = said(tmp_path, store, draft, **searched)
    assert told.startswith("calibration.statistics: 'ranges' is not enough for speculative.draft_format")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vocab_size": 4242}, "speculative.draft: its vocabulary has 4242 tokens, the model's"),
        ({"num_hidden_layers": 8}, "speculative.draft: 0.0 GB are no less than the model's 0.0 GB"),
        ({"max_position_embeddings": 64}, "speculative.draft: it knows 64 positions, engine.max_seq_len is"),
        ({"intermediate_size": 705}, "speculative.draft: engine.tp: 2 does not divide 705 MLP channels"),
    ],
)
def test_drafts_that_do_not_go_with_the_model_are_refused(
    tmp_path: Path, store: LocalStore, change: dict[str, Any], told: str
):
    found = said(tmp_path, store, smaller(tmp_path / "draft", **change))
    assert len(found) == 1
    assert found[0].startswith(told)


def test_another_tokenizer_is_refused_by_the_plan_and_by_the_conversion(
    tmp_path: Path, store: LocalStore, draft: Path
):
    file = draft / "tokenizer.json"
    tokens = json.loads(file.read_text())
    vocab = tokens["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    file.write_text(json.dumps(tokens))
    (told,) = said(tmp_path, store, draft)
    assert told.startswith("speculative.draft: its tokenizer gives ids to other tokens than the model's")
    with pytest.raises(SourceError, match="its vocabulary is not that of"):
        require_same(DEMO / "model", draft)


def test_a_missing_draft_is_told_with_its_place(tmp_path: Path, store: LocalStore):
    with pytest.raises(RecipeError, match=r"speculative\.draft: .*nowhere"):
        planned(tmp_path, store, tmp_path / "nowhere")


def test_a_vocabulary_is_its_tokens_and_nothing_else(tmp_path: Path):
    def digest(name, **changes) -> str:
        directory = tmp_path / name
        directory.mkdir()
        table = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "<s>", "id": 2}]}
        (directory / "tokenizer.json").write_text(json.dumps(table | changes))
        return vocabulary(directory)

    plain = digest("plain")
    assert digest("merges", normalizer={"type": "NFC"}) == plain
    assert digest("unigram", model={"vocab": [["a", -1.0], ["b", -2.0]]}) == plain
    assert digest("listed", model={"vocab": {"b": 1, "a": 0, "<s>": 2}}) == plain
    assert digest("swapped", model={"vocab": {"a": 1, "b": 0}}) != plain
    assert digest("more", added_tokens=[{"content": "<s>", "id": 3}]) != plain
    assert vocabulary(tmp_path) == ""
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    assert len(vocabulary(tmp_path)) == 64
