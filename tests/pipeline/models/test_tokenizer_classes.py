"""A tokenizer.json beside the class that transformers reads it by: what plan says, and what comes of it."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from artifacts.store.local import LocalStore
from calibration.data.chats import Chat
from calibration.data.rendering import PROBES, Reader, Rendering
from calibration.errors import CheckpointError, DataError
from pipeline.errors import SourceError
from pipeline.models.tokenizer_check import read_tokens
from pipeline.models.tokenizer_classes import REBUILT
from pipeline.plan.facts import read_source
from recipes.demo import demo_tokenizer as demo
from recipes.schema import Model
from tests.cases import BASE, lay_out
from tests.pipeline.models.test_tokenizer_check import trained
from tests.present import present

MODEL = BASE / "model"
CLASSES = (
    *REBUILT, "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", None,
)  # fmt: skip

OWN_RULES = ("BartTokenizer", "BlenderbotTokenizer", "CLIPTokenizer", "CohereTokenizer", "DebertaTokenizer",
             "NougatTokenizer", "RobertaTokenizer", "WhisperTokenizer")  # fmt: skip
"""Byte-level too, with rules or tokens of their own, which the first step that tokenizes compares."""


def byte_level(directory: Path, name: str | None, **config: object) -> Path:
    """The base's tokenizer, a byte-level BPE, under the name of a class."""
    directory.mkdir(exist_ok=True)
    shutil.copy(MODEL / "tokenizer.json", directory)
    about = json.loads((MODEL / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**about, "tokenizer_class": name}))
    model = json.loads((MODEL / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**model, **config}))
    return directory


def converted(tmp_path: Path, name: str, spaced: bool) -> Path:
    """A SentencePiece model that transformers saved as tokenizer.json."""
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    (made / "tokenizer.model").write_bytes(trained(spaced=spaced))
    shutil.copy(MODEL / "config.json", made)
    (made / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    AutoTokenizer.from_pretrained(made, local_files_only=True).save_pretrained(out)
    (out / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
    return out


def opens(directory: Path) -> str:
    """What Reader.open says against a tokenizer; empty where it takes it."""
    try:
        Reader.open(directory, "model")
    except CheckpointError as exc:
        return str(exc)
    return ""


def planned(directory: Path) -> str:
    """What plan says against it."""
    try:
        read_tokens(directory, 400)
    except SourceError as exc:
        return str(exc)
    return ""


def test_a_class_that_drops_the_spaces_is_refused_with_what_differs(tmp_path: Path):
    said = opens(byte_level(tmp_path, "LlamaTokenizerFast"))
    assert said.startswith(
        "model: transformers reads tokenizer.json by LlamaTokenizer, which makes other tokens"
    )
    assert "The pump [x] loses" in said
    assert "set tokenizer_class to PreTrainedTokenizerFast" in said
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "The pump [x] loses das Ufer"  # the silence that it was
    assert theirs.decode(theirs(text, add_special_tokens=False)["input_ids"]) == text.replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_plan_and_transformers_agree_about_a_byte_level_tokenizer_under_a_class(
    name: str | None, tmp_path: Path
):
    said = opens(byte_level(tmp_path, name))
    assert not planned(tmp_path) or said
    if name not in OWN_RULES:
        assert bool(planned(tmp_path)) == bool(said), said


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_what_plan_refuses_of_a_converted_sentencepiece_model_transformers_reads_otherwise(
    name: str | None, tmp_path: Path
):
    out = converted(tmp_path, "LlamaTokenizer", spaced=True)
    about = json.loads((out / "tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps({**about, "tokenizer_class": name}))
    if planned(out):
        assert opens(out)
    elif name in ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"):
        assert opens(out) == ""


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "llama", "mistral", "gemma"])
@pytest.mark.parametrize("name", ["LlamaTokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast", None])
def test_the_class_depends_on_the_kind_of_model_as_in_transformers(
    name: str | None, model_type: str, tmp_path: Path
):
    said = opens(byte_level(tmp_path, name, model_type=model_type))
    assert bool(planned(tmp_path)) == bool(said), said


def test_good_combinations_are_read(tmp_path: Path):
    gemma = converted(tmp_path, "GemmaTokenizer", spaced=False)
    assert opens(gemma) == planned(gemma) == ""
    shown = Path(present(demo.__file__)).parent / "model"
    assert opens(shown) == planned(shown) == ""


def test_the_tokenizer_json_of_llama_2_is_read(tmp_path: Path):
    """Its pieces come from a normalizer; transformers 5 takes a pre-tokenizer in its place."""
    out = converted(tmp_path, "LlamaTokenizer", spaced=True)
    found = json.loads((out / "tokenizer.json").read_text())
    found["pre_tokenizer"] = None
    found["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}  # fmt: skip
    (out / "tokenizer.json").write_text(json.dumps(found))
    assert len(Tokenizer.from_file(str(out / "tokenizer.json")).encode(PROBES[0]).ids) > 20
    assert opens(out) == planned(out) == ""


@pytest.mark.parametrize("name", ["GemmaTokenizerFast", "CodeLlamaTokenizer", "T5Tokenizer", "BertTokenizer",
                                  "XLMRobertaTokenizer"])  # fmt: skip
def test_whatever_transformers_raises_is_a_checkpoint_error(name: str, tmp_path: Path):
    assert "transformers " in opens(byte_level(tmp_path, name))
    assert "set tokenizer_class to PreTrainedTokenizerFast" in planned(tmp_path)
    assert f"{tmp_path}/tokenizer_config.json" in planned(tmp_path)


def test_a_template_of_tokens_that_are_not_there_is_refused(tmp_path: Path):
    byte_level(tmp_path, "PreTrainedTokenizerFast")
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    found["post_processor"] = {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                               "single": [{"SpecialToken": {"id": "<zz>", "type_id": 0}}]}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    assert opens(tmp_path).startswith("model: transformers cannot load the tokenizer (")
    assert planned(tmp_path).startswith(f"{tmp_path}/tokenizer.json: ")


def special(name: str) -> dict[str, object]:
    """A token as added_tokens_decoder holds it."""
    return {"content": name, "special": True, **dict.fromkeys(("lstrip", "rstrip", "normalized"), False)}


@pytest.mark.parametrize(
    ("config", "beside"),
    [
        ({"bos_token": "<nope>"}, None),
        ({"image_token": "<im>", "extra_special_tokens": {"im": "<x>"}}, None),
        ({"additional_special_tokens": ["<x>", "<y>"], "pad_token": "<zz>"}, None),
        ({"added_tokens_decoder": {"5": special("<clash>"), "999": special("<far>")}}, None),
        ({}, {"bos_token": "<nope>"}),
        ({"bos_token": None, "added_tokens_decoder": {"0": special("<|bos|>")}}, {"bos_token": "<nope>"}),
    ],
)
def test_tokens_that_are_in_no_table_get_the_ids_that_transformers_gives_them(
    config, beside: dict[str, Any] | None, tmp_path: Path
):
    byte_level(tmp_path, "TokenizersBackend")
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**about, **config}))
    if beside:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(beside))
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).get_vocab()
    found = read_tokens(tmp_path, 320).beyond
    added = {text: number for text, number in theirs.items() if number >= 320}
    assert set(found) == set(added)
    assert sorted(found.values()) == sorted(added.values())


@pytest.mark.slow
def test_a_bos_that_the_model_lacks_is_no_fault_of_the_rows(tmp_path: Path):
    byte_level(tmp_path, "TokenizersBackend")
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**about, "bos_token": "<nope>"}))
    chat, how = (
        Chat(({"role": "user", "content": "a"},)),
        Rendering("{{ bos_token }}{{ messages[0].content }}"),
    )
    with pytest.raises(DataError, match="that is the tokenizer's BOS") as refused:
        Reader.open(tmp_path, "model").token_ids(chat, how, "chats.jsonl:1")
    assert "drop the row" not in str(refused.value)


def test_a_bos_beyond_the_model_in_front_of_every_text_is_refused_by_the_plan(tmp_path: Path):
    byte_level(tmp_path, "TokenizersBackend")
    found = json.loads((tmp_path / "tokenizer.json").read_text().replace("<|bos|>", "<|start|>"))
    found["added_tokens"].append({**found["added_tokens"][0], "id": 320, "content": "<|late|>"})
    (template,) = (one for one in found["post_processor"]["processors"] if one["type"] != "ByteLevel")
    template["single"][0]["SpecialToken"]["id"] = "<|late|>"
    template["special_tokens"]["<|late|>"] = {"id": "<|late|>", "ids": [320], "tokens": ["<|late|>"]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    said = f"{tmp_path}/tokenizer.json: the tokenizer puts <|late|> = 320 in front of every text"
    with pytest.raises(SourceError) as refused:
        read_tokens(tmp_path, 320)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "special_tokens_map.json"])
def test_a_file_of_gigabytes_is_refused_before_it_is_hashed(name: str, tmp_path: Path):
    lay_out("gate-windows-bos", tmp_path)
    (tmp_path / "model" / name).touch()
    os.truncate(tmp_path / "model" / name, 5 << 30)
    started = time.process_time()
    with pytest.raises(SourceError, match=f"{name}: {5 << 30} bytes; at most"):
        read_source(Model(path="model"), tmp_path, LocalStore(tmp_path / "store"))
    assert time.process_time() - started < 1


def test_padding_has_two_sides(tmp_path: Path):
    byte_level(tmp_path, "TokenizersBackend")
    (tmp_path / "tokenizer_config.json").write_text('{"padding_side": "up"}')
    assert "padding_side is 'up', left or right is needed" in planned(tmp_path)
