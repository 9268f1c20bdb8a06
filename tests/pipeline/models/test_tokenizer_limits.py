"""What a tokenizer.json asks of its library beyond sense is refused before the library has it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from pipeline.errors import SourceError
from pipeline.models.tokenizer_check import read_tokens
from pipeline.models.tokenizer_limits import GROWTH, PADDED, STEPS, excesses
from tests.cases import BASE

GOOD = json.loads((BASE / "model" / "tokenizer.json").read_text())
ROWS = 320
"""Tokens of the base's model."""


def replace(pattern: dict[str, str] | str, content: str) -> dict[str, Any]:
    held = {"String": pattern} if isinstance(pattern, str) else pattern
    return {"type": "Replace", "pattern": held, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def padding(**changes: object) -> dict[str, Any]:
    return {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "x", **changes}  # fmt: skip


def token(**changes: object) -> dict[str, Any]:
    return {"id": ROWS, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **changes}  # fmt: skip


def template(ids: int, *pieces: dict[str, Any]) -> dict[str, Any]:
    held = {"<t>": {"id": "<t>", "ids": [0] * ids, "tokens": ["x"] * ids}}
    pair = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": pair, "special_tokens": held}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL = {"SpecialToken": {"id": "<t>", "type_id": 0}}
LOST = {"SpecialToken": {"id": "<lost>", "type_id": 0}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
MAP = base64.b64encode(bytes(4) + b"ab\0" + b"x" * (GROWTH + 1) + b"\0").decode()

BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "10^12 of padding": ({"padding": padding(strategy={"Fixed": 10**12})}, "padding.strategy.Fixed is 10000"),
    "10^7 of padding": ({"padding": padding(strategy={"Fixed": 10**7})}, f"{PADDED} tokens at most"),
    "multiples of 10^12": ({"padding": padding(pad_to_multiple_of=10**12)}, "padding.pad_to_multiple_of is"),
    "34 doublings": ({"normalizer": sequence(*[replace("a", "aa")] * 34)}, "text 17179869184 times longer"),
    "a letter to ten": ({"normalizer": sequence(*[replace({"Regex": "."}, "a" * 10)] * 9)}, "times longer"),
    "a pattern of nothing": ({"normalizer": sequence(*[replace("", "b")] * 34)}, "times longer"),
    "doublings deep down": (
        {"normalizer": sequence(*[sequence(sequence(replace("a", "aa")))] * 34)}, "times longer",
    ),
    "long prefixes": ({"normalizer": {"type": "Prepend", "prepend": "a" * 10**5}}, "times longer"),
    "a table of long texts": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": MAP}}, "times"),
    "bytes of bytes": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 34}}, "pre_tokenizer can make",
    ),
    "texts put back longer": (
        {"decoder": {"type": "Sequence", "decoders": [replace("a", "aa")] * 34}}, "decoder can make",
    ),
    "steps without end": ({"normalizer": sequence(*[{"type": "NFC"}] * (STEPS + 1))}, "steps; at most 1000 are run"),
    "long patterns": ({"normalizer": replace({"Regex": "a" * (1 << 21)}, "a")}, "patterns of 2097152"),
    "added tokens that grow": (
        {"normalizer": replace("a", "a" * 1000), "added_tokens": [token(content="a" * 40_000, normalized=True)]},
        "added_tokens can become 40000000 bytes",
    ),
    "a template of millions": ({"post_processor": template(2000, TEXT, *[SPECIAL] * 2000)}, "4000001 tokens"),
    "templates of templates": (
        {"post_processor": {"type": "Sequence", "processors": [template(1, TEXT, TEXT)] * 40}}, "of one; at",
    ),
    "a token that is not there": (
        {"post_processor": template(1, LOST, TEXT)}, "post_processor: its template 'single' names '<lost>'",
    ),
    "a sparse added id": ({"added_tokens": [token(id=10**9)]}, "added_tokens[0].id is 1000000000; ids up to"),
    "a sparse id": (
        {"model": {**GOOD["model"], "vocab": {**GOOD["model"]["vocab"], "zz": 10**9}}}, "the id of 'zz' is 10",
    ),
}  # fmt: skip


def said(directory: Path, changes: dict[str, Any]) -> str:
    """What is said against the base's tokenizer with these fields."""
    (directory / "tokenizer.json").write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(SourceError) as refused:
        read_tokens(directory, ROWS)
    return str(refused.value)


@pytest.mark.parametrize("name", BEYOND)
def test_what_would_cost_memory_or_time_is_refused_by_its_field(name: str, tmp_path: Path):
    changes, wanted = BEYOND[name]
    found = said(tmp_path, changes)
    assert found.startswith(f"{tmp_path}/tokenizer.json: ")
    assert wanted in found


TAKEN: dict[str, dict[str, Any]] = {
    "padding within the limit": {"padding": padding(strategy={"Fixed": PADDED}, pad_to_multiple_of=PADDED)},
    "Llama 2": {"normalizer": sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁"))},
    "XLM": {"normalizer": sequence({"type": "NFKC"}, replace({"Regex": " {2,}"}, "▁"), {"type": "Lowercase"})},
    "a template as they are": {"post_processor": template(1, SPECIAL, TEXT, SPECIAL)},
    "tokens beyond the vocabulary": {"added_tokens": [token()]},
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_tokenizers_in_use_ask_for_is_taken(name: str, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({**GOOD, **TAKEN[name]}))
    assert read_tokens(tmp_path, ROWS).missing == ""


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, 5, "x", [5], {}, {"type": 5}, [[]], {"normalizers": 5},
                                   {"normalizers": [5, None]}, {"pattern": 5, "content": 5},
                                   {"pattern": {"Regex": 5}, "content": None}, {"prepend": 5},
                                   {"precompiled_charsmap": "?"}, {"precompiled_charsmap": "é"},
                                   {"strategy": 5}, {"strategy": {"Fixed": "x"}}, {"strategy": {"Fixed": True}},
                                   {"single": 5}, {"single": [{"SpecialToken": 5}], "special_tokens": {"a": 5}}])  # fmt: skip
@pytest.mark.parametrize("field", ["padding", "normalizer", "pre_tokenizer", "post_processor", "decoder",
                                   "added_tokens", "model"])  # fmt: skip
def test_values_of_a_wrong_type_are_left_to_the_library(field: str, value):
    assert list(excesses({**GOOD, field: value}, ROWS)) == []


def test_a_table_of_sentencepiece_itself_is_taken(tmp_path: Path):
    made = Tokenizer.from_str(json.dumps(GOOD))
    made.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Replace("``", '"')])
    assert list(excesses(json.loads(made.to_str()), ROWS)) == []


def test_a_panic_of_the_library_is_said_in_words(tmp_path: Path):
    lacking = {**template(1, SPECIAL, TEXT), "special_tokens": {}}
    found = said(tmp_path, {"post_processor": lacking})
    assert f"{tmp_path}/tokenizer.json: " in found
    assert "cannot be used: a pattern, a template or a table in it does not work" in found


@pytest.mark.slow
def test_a_pattern_that_takes_minutes_on_an_added_token_is_refused(tmp_path: Path):
    slow = {
        "normalizer": replace({"Regex": "a*b"}, ""),
        "added_tokens": [token(content="a" * 10**6, normalized=True)],
    }
    assert "tokenizer.json: normalizer: its patterns on the file's own added_tokens take more" in said(
        tmp_path, slow
    )


@pytest.mark.slow
def test_a_pattern_that_takes_no_time_is_taken_and_a_broken_one_told(tmp_path: Path):
    quick = {"normalizer": replace({"Regex": " {2,}"}, " "), "added_tokens": [token(normalized=True)]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**GOOD, **quick}))
    assert read_tokens(tmp_path, ROWS).missing == ""
    assert "cannot read it" in said(tmp_path, {**quick, "normalizer": replace({"Regex": "("}, " ")})
