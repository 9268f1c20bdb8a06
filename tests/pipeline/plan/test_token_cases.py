"""The inputs of `tests/cases` that are about tokens: their plans, and the steps that tokenize, as planned."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from artifacts.store.local import LocalStore
from calibration.errors import DataError
from pipeline.errors import EXIT_CODES
from pipeline.evaluate import generation
from pipeline.plan.planning import Draft
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from tests.cases import lay_out
from tests.jobs import Build, build_baseline, build_calibration_set, build_leakage, params_of, plain
from tests.pipeline.plans import HOST, draft_file


def drafted(name: str, tmp_path: Path) -> Draft:
    """The plan of a case."""
    (draft,) = draft_file(lay_out(name, tmp_path), Site(store=LocalStore(tmp_path / "store"), host=HOST))
    return draft


def job(draft: Draft, kind: str, tmp_path: Path) -> dict[str, Any]:
    """What the step's child is given, with the model itself for the copy that the source step makes."""
    step = draft.plan.step(kind)
    return {**step.as_dict(), "places": plain(step.places), "inputs": {"source": str(tmp_path / "model")}}


def done(builder: Build, made: Mapping[str, Any], out: Path) -> Path:
    out.mkdir()
    builder(made, out, lambda *_: None)
    return out


def test_a_tokenizer_model_alone_is_planned_and_calibrated_with_sentencepieces_tokens(tmp_path: Path):
    draft = drafted("sentencepiece-only", tmp_path)
    assert not any("sentencepiece" in problem for problem in draft.refusals.host)
    out = done(build_calibration_set, job(draft, "calibration_set", tmp_path), tmp_path / "out")
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "model" / "tokenizer.model"))
    rows = [json.loads(line)["text"] for line in (tmp_path / "calib.jsonl").read_text().splitlines()]
    for sample in map(json.loads, (out / "samples.jsonl").read_text().splitlines()):
        assert sample["tokens"] == 1 + len(own.encode(rows[sample["line"] - 1]))
    assert (load_file(out / "tokens.safetensors")["tokens"][:, 0] == own.bos_id()).all()


def test_tokens_that_the_model_lacks_are_noted_by_the_plan_and_refused_where_a_row_uses_them(tmp_path: Path):
    draft = drafted("token-beyond-vocab", tmp_path)
    assert (
        draft.notes[0]
        == (
            "model: the model has 320 tokens, its tokenizer gives higher ids to <|think|> = 320, "
            "<|/think|> = 321; rows that use them are refused"
        )
        or "<|/think|> = 321" in draft.notes[0]
    )
    said = (
        r"calib\.jsonl:1 uses <\|think\|> = 320, <\|/think\|> = 321, the model has 320 tokens; drop the row"
    )
    with pytest.raises(DataError, match=said) as refused:
        done(build_calibration_set, job(draft, "calibration_set", tmp_path), tmp_path / "out")
    assert str(tmp_path / "calib.jsonl") in str(refused.value)
    gate = job(draft, "baseline", tmp_path)
    gate["params"] = {**gate["params"], "data": {**gate["params"]["data"],
                      "digests": params_of(draft.plan.step("calibration_set")).data[0].digests}}  # fmt: skip
    gate["places"]["files"] = [[str(tmp_path / "calib.jsonl")]]
    with pytest.raises(DataError, match=r"calib\.jsonl:\d+ uses <\|think\|> = 320"):
        done(build_baseline, gate, tmp_path / "gate")


def test_a_gate_row_with_a_token_that_the_model_lacks_is_refused_before_a_gpu_is_used(tmp_path: Path):
    recipe = lay_out("token-beyond-vocab", tmp_path)
    rows = (tmp_path / "gate.jsonl").read_text().splitlines()
    held = (tmp_path / "calib.jsonl").read_text().splitlines()
    (tmp_path / "gate.jsonl").write_text("\n".join([*rows, json.dumps({"text": "<|think|> so"}), ""]))
    (tmp_path / "calib.jsonl").write_text("\n".join([*(row for row in held if "think|>" not in row), ""]))
    recipe.write_text(recipe.read_text().replace("max_sequences: 40", "max_sequences: all"))
    (draft,) = draft_file(recipe, Site(store=LocalStore(tmp_path / "store"), host=HOST))
    tokens = done(build_calibration_set, job(draft, "calibration_set", tmp_path), tmp_path / "set")
    made = job(draft, "leakage", tmp_path)
    assert draft.plan.step("leakage").inputs["source"] == draft.plan.step("source").key
    made["inputs"]["calibration_set"] = str(tokens)
    with pytest.raises(DataError, match=rf"gate\.jsonl:{len(rows) + 1} uses <\|think\|> = 320"):
        done(build_leakage, made, tmp_path / "leakage")


def test_a_prompt_with_a_token_that_the_model_lacks_is_refused(tmp_path: Path):
    lay_out("token-beyond-vocab", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    prompt = generation.encode(tokenizer, "so <|think|> then", None)[0]
    with pytest.raises(DataError, match=r"the prompt uses <\|think\|> = 320, the model has 320 tokens"):
        generation.require_known(tokenizer, prompt, 320)
    generation.require_known(tokenizer, generation.encode(tokenizer, "so then", None)[0], 320)


def test_a_plan_refuses_a_broken_tokenizer_by_the_users_path(tmp_path: Path):
    recipe, broken = lay_out("gate-windows-bos", tmp_path), tmp_path / "model" / "tokenizer.json"
    broken.write_text(broken.read_text()[:4000])
    with pytest.raises(RecipeError, match="not valid JSON") as refused:
        draft_file(recipe, Site(store=LocalStore(tmp_path / "store"), host=HOST))
    assert f"model: {broken}: " in str(refused.value)
    assert EXIT_CODES[RecipeError] == 2


def test_a_host_without_sentencepiece_is_told_by_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drafted("sentencepiece-only", tmp_path)  # what was read with it is remembered, that it is there is not
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # what an import of an absent package finds
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    (said, *_) = drafted("sentencepiece-only", tmp_path).refusals.host
    assert (
        said
        == "model.path: tokenizer.model is read by sentencepiece, and sentencepiece is not installed; install it"
    )


def test_a_padding_token_that_the_model_lacks_is_not_used(tmp_path: Path):
    draft = drafted("token-beyond-vocab", tmp_path)
    config = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|think|>"}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config))
    made = job(draft, "calibration_set", tmp_path)
    gate = draft.plan.step("baseline")
    made["params"] = {
        **made["params"],
        "pack": False,
        "data": [{**plain(params_of(gate).data), "samples": 8}],
    }
    made["places"]["files"] = plain(gate.places)["files"]
    made["params"]["max_sequences"] = "all"
    out = done(build_calibration_set, made, tmp_path / "out")
    assert load_file(out / "tokens.safetensors")["tokens"].max() < 320


def test_every_scored_sequence_begins_with_bos_and_the_scores_are_those_of_transformers(tmp_path: Path):
    draft = drafted("gate-windows-bos", tmp_path)
    out = done(build_baseline, job(draft, "baseline", tmp_path), tmp_path / "out")
    tokens = load_file(out / "tokens.safetensors")["tokens"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokens.shape == (24, 64)
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    assert not (tokens[:, 1] == tokenizer.bos_token_id).any()
    written = load_file(out / "records.safetensors")["target_logprob"]
    assert written.shape == (24, 63)  # a token after each but the last: never the first, BOS
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).logits[:, :-1].log_softmax(-1).numpy()
    target = np.take_along_axis(logits, tokens[:, 1:, None].astype(np.int64), -1)[..., 0]
    assert written.mean() == pytest.approx(target.mean(), abs=0.01)
    for name in ("report.json", "scores.json"):
        said = json.loads((out / name).read_text())["sequences_begin_with"]
        assert said == {"tokens": "<|bos|>", "sequences": 24}
