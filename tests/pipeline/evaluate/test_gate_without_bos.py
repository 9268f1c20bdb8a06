"""A model that reads nothing without BOS: its perplexity is that of its use, since every window begins with BOS."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from artifacts import digest
from tests.jobs import build_baseline, build_calibration_set

WORDS, BOS, TEXT, QUERY = 30, 30, 40, 41
"""Words of the language, each followed by the next; BOS's id; hidden channels of any token and of BOS."""

SEQ_LEN, SEQUENCES = 16, 12


def sinking(directory: Path, *, adds_bos: bool = True) -> Path:
    """One layer whose attention, without a BOS to sink on, drowns what the token says in other tokens' noise."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS + 2, hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=64, bos_token_id=BOS, eos_token_id=BOS + 1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12}, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    weights = model.state_dict()
    for name, tensor in weights.items():
        if "norm" not in name:
            tensor.zero_()
    words = torch.arange(WORDS)
    embedding, attention = weights["model.embed_tokens.weight"], "model.layers.0.self_attn"
    embedding[words, words] = 1.0  # which word it is
    embedding[:, TEXT] = 1.0
    embedding[BOS, QUERY] = 4.0
    # Channel 31 turns slowest of all, so that position hardly matters: every token asks for BOS.
    weights[f"{attention}.q_proj.weight"][31, TEXT] = 20.0
    weights[f"{attention}.k_proj.weight"][31, QUERY] = 20.0
    weights[f"{attention}.v_proj.weight"][:WORDS, :WORDS] = torch.randn(WORDS, WORDS)
    weights[f"{attention}.o_proj.weight"][:WORDS, :WORDS] = 40 * torch.eye(WORDS)
    weights["lm_head.weight"][(words + 1) % WORDS, words] = 4.0
    model.load_state_dict(weights)
    model.save_pretrained(directory)
    vocabulary = {f"w{word}": word for word in range(WORDS)} | {"<s>": BOS, "</s>": BOS + 1}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="</s>"))
    inner.pre_tokenizer = WhitespaceSplit()
    if adds_bos:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(
        directory
    )
    return directory


def rows(path: Path) -> Path:
    """Two long texts, of which most windows see the middle only."""
    texts = [" ".join(f"w{(start + step) % WORDS}" for step in range(150)) for start in (0, 7)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def job(source: Path, data: Path, **params: object) -> dict[str, object]:
    """What a step's child is given."""
    taken = {
        "digests": [digest.of_file(data)],
        "kind": "jsonl",
        "samples": "all",
        "columns": {},
        "bad_rows": 0,
    }
    held = {"data": taken, "seq_len": SEQ_LEN, "max_sequences": SEQUENCES, "top_k": 8, **params}
    return {"params": held, "places": {"files": [[str(data)]]}, "inputs": {"source": str(source)}}


def perplexity(source: Path, tokens: np.ndarray) -> float:
    """Transformers' own: the mean of its loss over sequences, which leaves the first token out."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        return math.exp(model(input_ids=ids, labels=ids).loss)


def scored(source: Path, data: Path, out: Path) -> tuple[float, np.ndarray]:
    out.mkdir()
    build_baseline(job(source, data), out, lambda *_: None)
    found = json.loads((out / "scores.json").read_text())
    return found["perplexity"], load_file(out / "tokens.safetensors")["tokens"]


def test_the_gate_scores_windows_as_the_model_is_used(tmp_path: Path):
    source, data = sinking(tmp_path / "model"), rows(tmp_path / "rows.jsonl")
    found, tokens = scored(source, data, tmp_path / "out")
    assert (tokens[:, 0] == BOS).all()
    assert found == pytest.approx(perplexity(source, tokens), rel=1e-4)
    stream = AutoTokenizer.from_pretrained(source)(json.loads(data.read_text().splitlines()[0])["text"])[
        "input_ids"
    ]
    bare = np.array(stream[1 : 1 + 9 * SEQ_LEN]).reshape(9, SEQ_LEN)
    assert found < 2
    assert perplexity(source, bare) > 1000 * found


def test_a_tokenizer_that_adds_none_gets_none(tmp_path: Path):
    source, data = sinking(tmp_path / "model", adds_bos=False), rows(tmp_path / "rows.jsonl")
    out = tmp_path / "out"
    _, tokens = scored(source, data, out)
    stream = [(start + step) % WORDS for start in (7, 0) for step in range(150)]
    other = [(start + step) % WORDS for start in (0, 7) for step in range(150)]
    assert tokens.flatten().tolist() in (stream[: tokens.size], other[: tokens.size])
    assert json.loads((out / "report.json").read_text())["sequences_begin_with"] == {
        "tokens": None,
        "sequences": 0,
    }


@pytest.mark.parametrize("how", [{}, {"pack": False}, {"pack": False, "truncate": "left"}])
def test_calibration_windows_begin_with_bos_however_they_are_cut(how: dict[str, Any], tmp_path: Path):
    source, data, out = sinking(tmp_path / "model"), rows(tmp_path / "rows.jsonl"), tmp_path / "out"
    out.mkdir()
    made: dict[str, Any] = job(source, data, pack=True, truncate="right", seed=0, max_sequences="all")
    made["params"] |= {"data": [made["params"]["data"]]} | how
    del made["params"]["top_k"]  # only of a baseline
    build_calibration_set(made, out, lambda *_: None)
    held = load_file(out / "tokens.safetensors")
    tokens = held["tokens"]
    assert (tokens[:, 0] == BOS).all()
    assert set(held.get("lengths", np.full(len(tokens), SEQ_LEN)).tolist()) == {SEQ_LEN}
    if how.get("truncate") == "left":
        ends = sorted([(start + 135 + step) % WORDS for step in range(15)] for start in (0, 7))
        assert sorted(tokens[:, 1:].tolist()) == ends
    report = json.loads((out / "report.json").read_text())
    assert report["sequences_begin_with"] == {"tokens": "<s>", "sequences": len(tokens)}
    assert f"{len(tokens)} of {len(tokens)} begin with &lt;s&gt;" in (out / "page.html").read_text()
