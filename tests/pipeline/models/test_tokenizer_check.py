"""Tokenizer files at plan, against transformers and sentencepiece themselves."""

import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import sentencepiece

from pipeline.errors import SourceError
from pipeline.models.tokenizer_check import BYTE_LEVEL, PIECES, read_tokens
from tests.cases import BASE, lay_out

MODEL = BASE / "model"
GOOD = (MODEL / "tokenizer.json").read_text()
TEXTS = ("Hello the  world\n a", "a", "the model\t\tx é😀")


def laid(tmp_path: Path, **files: str) -> Path:
    """A directory with these files, `__` for the dot."""
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def complaint(directory: Path) -> str:
    """What is said against a tokenizer."""
    with pytest.raises(SourceError) as refused:
        read_tokens(directory, 320)
    return str(refused.value)


def bpe(**changes: object) -> str:
    """A tokenizer.json whose model is changed."""
    found = json.loads(GOOD)
    return json.dumps({**found, "model": {**found["model"], **changes}})


BROKEN = {
    "truncated": (GOOD[:5000], "not valid JSON"),
    "no JSON": ("tokenizer", "not valid JSON"),
    "another kind of JSON": ("[]", "not a JSON object but []"),
    "an empty object": ("{}", "it has no model with a vocab"),
    "the JSON of something else": (json.dumps({"model": "llama"}), "it has no model with a vocab"),
    "an unknown model": (bpe(type="Morpheme"), "model.type is 'Morpheme', one of BPE, Unigram"),
    "merges without their tokens": (bpe(merges=[["zz", "yy"]]), "`zz` out of vocabulary"),
    "an id that is none": (bpe(vocab={"a": -1}), "expected u32"),
    "100,000 deep": ('{"a":' * 100_000, "nested 100000 deep; at most"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tokenizer_is_refused_with_its_path_and_what_is_wrong(name: str, tmp_path: Path):
    text, said = BROKEN[name]
    found = complaint(laid(tmp_path, tokenizer__json=text))
    assert found.startswith(f"{tmp_path}/tokenizer.json: ")
    assert said in found


def test_files_beside_the_tokens_are_checked_too_and_everything_is_said_at_once(tmp_path: Path):
    config = {
        "tokenizer_class": 5,
        "bos_token": 7,
        "added_tokens_decoder": {"x": {}},
        "model_max_length": "x",
    }
    found = complaint(
        laid(
            tmp_path,
            tokenizer__json="{",
            tokenizer_config__json=json.dumps(config),
            special_tokens_map__json="[]",
            added_tokens__json='{"<a>": "b"}',
        )
    )
    for said in (
        "tokenizer_config.json: tokenizer_class is 5, a string is needed",
        "bos_token is 7, a token",
        "added_tokens_decoder is an object of 1, an object of id -> token is needed",
        "model_max_length is 'x', a number is needed",
        "special_tokens_map.json: not a JSON object but []",
        "added_tokens.json: <a> is 'b', a token's id is needed",
        "tokenizer.json: not valid JSON",
    ):
        assert said in found


@pytest.mark.parametrize("config", ["[]", '{"tokenizer_class": 5}', '{"bos_token": 7}', '{"model_max_length": "x"}',
                                    '{"added_tokens_decoder": []}', '{"extra_special_tokens": 5}'])  # fmt: skip
def test_what_transformers_cannot_read_is_refused(config: str, tmp_path: Path):
    from transformers import AutoTokenizer  # seconds, which the other tests need not wait

    laid(tmp_path, tokenizer__json=GOOD, tokenizer_config__json=config)
    shutil.copy(MODEL / "config.json", tmp_path)
    with pytest.raises((TypeError, ValueError, AttributeError)):
        AutoTokenizer.from_pretrained(tmp_path)("a")
    assert "tokenizer_config.json: " in complaint(tmp_path)


def test_a_fifo_a_device_or_a_huge_file_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "tokenizer.json")
    assert "is a FIFO; it must be a regular file" in complaint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    assert "is a device; it must be a regular file" in complaint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").touch()
    os.truncate(tmp_path / "tokenizer.json", 1 << 40)
    assert "at most that many are read" in complaint(tmp_path)


def test_a_plan_does_not_wait_for_a_pipe(tmp_path: Path):
    from artifacts.store.local import LocalStore
    from pipeline.plan.facts import read_source
    from recipes.schema import Model

    lay_out("gate-windows-bos", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
        os.mkfifo(tmp_path / "model" / name)
        with pytest.raises(SourceError, match=f"{name}: no regular file"):
            read_source(Model(path="model"), tmp_path, LocalStore(tmp_path / "store"))
        (tmp_path / "model" / name).unlink()
        (tmp_path / "model" / name).write_text(GOOD if name == "tokenizer.json" else "{}")


def trained(*, spaced: bool, kind: str = "bpe") -> bytes:
    """A SentencePiece model as Llama's (a space in front) or Gemma's is made."""
    rows = [json.loads(line)["text"] for line in (BASE / "calib.jsonl").read_text().splitlines()]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rows), model_writer=written, vocab_size=340, byte_fallback=True, minloglevel=2,
        model_type=kind, add_dummy_prefix=spaced, remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )  # fmt: skip
    return written.getvalue()


@pytest.mark.parametrize("name", [*PIECES, *(f"{name}Fast" for name in PIECES)])
def test_a_tokenizer_model_that_is_accepted_is_read_as_sentencepiece_reads_it(name: str, tmp_path: Path):
    from transformers import AutoTokenizer  # as above

    model = trained(spaced=PIECES[name.removesuffix("Fast")])
    (tmp_path / "tokenizer.model").write_bytes(model)
    shutil.copy(MODEL / "config.json", tmp_path)
    laid(tmp_path, tokenizer_config__json=json.dumps({"tokenizer_class": name}))
    assert read_tokens(tmp_path, 340).beyond == {}
    assert len(read_tokens(tmp_path, 300).beyond) == 40
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == own.encode(text)


@pytest.mark.parametrize(
    ("spaced", "kind", "name"),
    [(True, "bpe", "GemmaTokenizer"), (False, "bpe", "LlamaTokenizer"), (True, "unigram", "LlamaTokenizer"),
     (True, "bpe", "PreTrainedTokenizerFast"), (True, "bpe", None)],
)  # fmt: skip
def test_one_that_transformers_reads_otherwise_is_refused(
    spaced: bool, kind: str, name: str | None, tmp_path: Path
):
    from transformers import AutoTokenizer  # as above

    model = trained(spaced=spaced, kind=kind)
    (tmp_path / "tokenizer.model").write_bytes(model)
    shutil.copy(MODEL / "config.json", tmp_path)
    laid(tmp_path, tokenizer_config__json=json.dumps({"tokenizer_class": name}))
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert any(theirs(text, add_special_tokens=False)["input_ids"] != own.encode(text) for text in TEXTS)
    assert "transformers makes other tokens than sentencepiece" in complaint(tmp_path)


def test_a_tokenizer_model_that_is_none_is_refused(tmp_path: Path):
    laid(tmp_path, tokenizer__model="pieces", tokenizer_config__json='{"tokenizer_class": "LlamaTokenizer"}')
    assert "no SentencePiece model" in complaint(tmp_path)


def test_a_host_without_sentencepiece_is_told_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lay_out("sentencepiece-only", tmp_path)
    assert read_tokens(tmp_path / "model", 320).missing == ""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # what an import of an absent package finds
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    assert "sentencepiece" in read_tokens(tmp_path / "model", 320).missing


def halves(tmp_path: Path, name: str | None, merges: list[list[str]] | None = None) -> Path:
    """The base's vocabulary and merges in two files."""
    model = json.loads(GOOD)["model"]
    lines = [" ".join(pair) for pair in (model["merges"] if merges is None else merges)]
    shutil.copy(MODEL / "config.json", tmp_path)
    return laid(
        tmp_path,
        vocab__json=json.dumps(model["vocab"]),
        merges__txt="\n".join(["#version: 0.2", *lines, ""]),
        tokenizer_config__json=json.dumps({"tokenizer_class": name}),
    )


@pytest.mark.filterwarnings("ignore:.*BPE.__init__ will not create from files:DeprecationWarning")
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_vocabulary_and_merges_in_two_files_are_read_as_in_one(name: str, tmp_path: Path):
    from transformers import AutoTokenizer  # as above

    two, one = (
        AutoTokenizer.from_pretrained(path, local_files_only=True) for path in (halves(tmp_path, name), MODEL)
    )
    assert read_tokens(tmp_path, 320).beyond == {}
    for text in ("Hello the  world\n a", "the model that reads"):
        assert two(text)["input_ids"] == one(text, add_special_tokens=False)["input_ids"]


def test_two_files_that_fit_neither_class_nor_one_another_are_refused(tmp_path: Path):
    assert "tokenizer_config.json names LlamaTokenizer" in complaint(halves(tmp_path, "LlamaTokenizer"))
    assert "names no class" in complaint(halves(tmp_path, None))
    assert "merges.txt: does not fit vocab.json" in complaint(
        halves(tmp_path, "GPT2Tokenizer", [["zz", "yy"]])
    )
    assert "merges.txt: 'zz' is no pair" in complaint(halves(tmp_path, "GPT2Tokenizer", [["zz"]]))


def test_a_sparse_id_in_a_file_beside_is_refused(tmp_path: Path):
    laid(halves(tmp_path, "GPT2Tokenizer"), added_tokens__json='{"<far>": 1000000000}')
    assert f"{tmp_path}: its tokenizer's files give '<far>' the id 1000000000" in complaint(tmp_path)


def test_the_second_plan_does_not_read_a_large_tokenizer_again(tmp_path: Path):
    from artifacts.store.local import LocalStore
    from pipeline.plan.facts import read_source
    from recipes.schema import Model

    lay_out("token-beyond-vocab", tmp_path)
    store = LocalStore(tmp_path / "store")
    first = read_source(Model(path="model"), tmp_path, store)
    before = time.process_time()
    assert read_source(Model(path="model"), tmp_path, store).beyond == first.beyond
    assert time.process_time() - before < 1
    assert first.beyond == {"<|think|>": 320, "<|/think|>": 321}
    (held,) = json.loads((tmp_path / "store" / "tokenizers.json").read_text()).values()
    assert held["versions"] == {"<|think|>": "320", "<|/think|>": "321"}
    (tmp_path / "model" / "tokenizer.json").write_text("{")  # another digest: read again
    with pytest.raises(SourceError, match=r"tokenizer\.json: not valid JSON"):
        read_source(Model(path="model"), tmp_path, store)
