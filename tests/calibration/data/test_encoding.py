"""Long texts, encoded in pieces, against the same tokenizers on the whole text; and what that takes of memory."""

import io
import json
import random
import subprocess  # noqa: TID251 the step is measured in a process of its own
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from transformers import AutoTokenizer

from calibration.data import encoding
from calibration.data.encoding import OVERLAP, PIECE, encode
from tests.cases import BASE

pytestmark = pytest.mark.slow

ROWS = [json.loads(line)["text"] for line in (BASE / "calib.jsonl").read_text().splitlines()]
ROOT = Path(__file__).resolve().parents[3]


def mixed(length: int) -> str:
    """Text with everything that tokenizers treat apart, in an order that is always the same."""
    draw = random.Random(0)
    odd = [
        "  \n\n",
        "é😀",
        "\t\t",
        "don't",
        "12345678",
        "<|end|>",
        "e\u0301",
        "-----",
        "中文字",
        "x" * 40,
        "\r\n",
    ]
    parts, size = [], 0
    while size < length:
        parts.append(draw.choice(ROWS) if draw.random() < 0.5 else draw.choice(odd))
        size += len(parts[-1])
    return "".join(parts)


def byte_level():
    return AutoTokenizer.from_pretrained(BASE / "model")


def pieces(tmp_path: Path, name: str):
    """A SentencePiece tokenizer as the class wants it: without any pre-tokenizer."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ROWS), model_writer=written, vocab_size=340, byte_fallback=True, minloglevel=2,
        model_type="bpe", add_dummy_prefix=name == "LlamaTokenizer", remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    about = {"tokenizer_class": name, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "config.json").write_bytes((BASE / "model" / "config.json").read_bytes())
    return AutoTokenizer.from_pretrained(tmp_path)


def whole(tokenizer, text: str, special: bool):
    return tokenizer(text, add_special_tokens=special)["input_ids"]


@pytest.mark.parametrize("name", ["byte-level", "LlamaTokenizer", "GemmaTokenizer"])
@pytest.mark.parametrize("special", [True, False])
def test_a_text_in_pieces_has_the_tokens_of_the_whole(name: str, special: bool, tmp_path: Path):
    tokenizer = byte_level() if name == "byte-level" else pieces(tmp_path, name)
    for length in (PIECE, PIECE + OVERLAP + 1, 2 * PIECE + OVERLAP // 2, 5 * PIECE):
        text = mixed(length)
        assert encode(tokenizer, text, special=special).tolist() == whole(tokenizer, text, special)
        assert length == PIECE or len(encoding._encode_pieces(tokenizer, text)) > 1


def test_pieces_that_do_not_agree_are_encoded_at_once(tmp_path: Path):
    tokenizer = pieces(tmp_path, "LlamaTokenizer")
    text = "the" * PIECE  # one word: where its pieces start decides how its letters are merged
    assert encode(tokenizer, text, special=True).tolist() == whole(tokenizer, text, special=True)
    tokenizer = byte_level()
    for text in ("a" * (3 * PIECE), " " * (3 * PIECE), "ab " + " " * (2 * PIECE) + "cd"):
        assert np.array_equal(encode(tokenizer, text, special=True), whole(tokenizer, text, special=True))


MEASURE = """
import json, resource, sys
from pathlib import Path
import calibration.data.calibration_set
from tests.jobs import build_calibration_set
job, out = json.loads(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build_calibration_set(job, out, lambda *_: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def growth(row: str, where: Path) -> tuple[int, Path]:
    """Bytes by which the step's own process grows over a set with this row, and the step's output."""
    from artifacts import digest

    where.mkdir()
    data, out = where / "rows.jsonl", where / "out"
    out.mkdir()
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in [row, *ROWS]))
    params = {
        "data": [{"digests": [digest.of_file(data)], "kind": "jsonl", "samples": "all", "columns": {}, "bad_rows": 0}],
        "seq_len": 64, "max_sequences": "all", "seed": 0, "pack": True, "truncate": "right",
    }  # fmt: skip
    job = {"params": params, "places": {"files": [[str(data)]]}, "inputs": {"source": str(BASE / "model")}}
    argv = [sys.executable, "-c", MEASURE, json.dumps(job), str(out)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024, out


@pytest.mark.slow
def test_a_long_row_takes_at_most_twenty_times_its_size_and_is_warned_of(tmp_path: Path):
    small, _ = growth("a short row", tmp_path / "small")
    text = " ".join(ROWS * 150)[:3_000_000]
    large, out = growth(text, tmp_path / "large")
    assert large - small < 20 * len(text)
    report = json.loads((out / "report.json").read_text())
    assert report["longest_share"]["share"] > 0.5
    assert any("rows.jsonl:1 gives" in said for said in report["warnings"])
