"""Scoring a tiny random Llama against transformers itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from artifacts import digest
from calibration.errors import DataError
from pipeline.errors import SourceError
from pipeline.evaluate import baseline
from tests.jobs import build_baseline

VOCAB, SEQ_LEN, SEQUENCES, TOP_K = 256, 32, 6, 16


def make_checkpoint(directory: Path, *, tied: bool = False, dtype=torch.bfloat16, vocab_size=VOCAB) -> Path:
    """A two-layer Llama with random weights, and a tokenizer whose tokens are bytes."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(vocab_size=vocab_size, initializer_range=0.3, tie_word_embeddings=tied, **shape)
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heldout.jsonl"
    rows = [
        {"text": f"The {n}th lantern on the quay was lit before the harbour bell rang."} for n in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(source, text, **params) -> dict[str, Any]:
    data = {
        "digests": [digest.of_file(text)],
        "kind": "jsonl",
        "samples": "all",
        "columns": {},
        "bad_rows": 0,
    }
    whole = {"data": data, "seq_len": SEQ_LEN, "max_sequences": SEQUENCES, "top_k": TOP_K, **params}
    return {"params": whole, "places": {"files": [[str(text)]]}, "inputs": {"source": str(source)}}


@pytest.fixture(scope="module")
def made(source: Path, text: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("baseline")
    told = []
    build_baseline(job(source, text), out, lambda *event: told.append(event))
    return out, told


def test_the_scores_are_those_of_transformers(source: Path, made):
    tokens = load_file(made[0] / "tokens.safetensors")["tokens"]
    found = load_file(made[0] / "records.safetensors")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    with torch.no_grad():
        hidden = model.model(torch.from_numpy(tokens).long()).last_hidden_state
        logprob = torch.log_softmax(hidden.float() @ model.lm_head.weight.float().T, -1).numpy()[:, :-1]
    target = np.take_along_axis(logprob, tokens[:, 1:, None].astype(np.int64), -1)[..., 0]
    np.testing.assert_allclose(found["target_logprob"], target, atol=1e-4)
    ordered = -np.sort(-logprob, axis=-1)[..., :TOP_K]
    np.testing.assert_allclose(found["top_logprob"], ordered, atol=1e-4)
    at_ids = np.take_along_axis(logprob, found["top_ids"].astype(np.int64), -1)
    np.testing.assert_allclose(found["top_logprob"], at_ids, atol=1e-4)


def test_files_have_the_shapes_and_types_they_promise(made):
    tokens = load_file(made[0] / "tokens.safetensors")["tokens"]
    found = load_file(made[0] / "records.safetensors")
    assert (tokens.shape, tokens.dtype) == ((SEQUENCES, SEQ_LEN), np.int32)
    assert {name: (array.shape, str(array.dtype)) for name, array in found.items()} == {
        "target_logprob": ((SEQUENCES, SEQ_LEN - 1), "float32"),
        "top_ids": ((SEQUENCES, SEQ_LEN - 1, TOP_K), "int32"),
        "top_logprob": ((SEQUENCES, SEQ_LEN - 1, TOP_K), "float32"),
    }


def test_scores_and_report_say_what_was_scored(made):
    scores = json.loads((made[0] / "scores.json").read_text())
    found = load_file(made[0] / "records.safetensors")["target_logprob"]
    assert scores["perplexity"] == pytest.approx(np.exp(-found.mean()), rel=1e-5)
    assert (scores["tokens"], scores["sequences"]) == (SEQUENCES * (SEQ_LEN - 1), SEQUENCES)
    report = json.loads((made[0] / "report.json").read_text())
    assert (report["samples"], report["dtype"], report["top_k"]) == (8, "bfloat16", TOP_K)
    assert 0 < report["tail_mass"]["mean"] < 1


def test_progress_ends_with_every_token(made):
    assert made[1][-1] == (SEQUENCES * SEQ_LEN, SEQUENCES * SEQ_LEN, "tokens")


def test_a_second_run_writes_the_same_bytes(source: Path, text: Path, made, tmp_path: Path):
    build_baseline(job(source, text), tmp_path, lambda *_: None)
    for file in sorted(made[0].iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_small_batches_give_the_same_scores(source: Path, made):
    tokens = load_file(made[0] / "tokens.safetensors")["tokens"]
    model = baseline.load(source)
    one_by_one = np.concatenate(
        [baseline.score(model, tokens[i : i + 1], TOP_K, lambda *_: None).target_logprob for i in range(6)]
    )
    together = load_file(made[0] / "records.safetensors")["target_logprob"]
    np.testing.assert_allclose(one_by_one, together, atol=0.1)  # bf16 sums may be taken in another order


def test_a_tied_head_leaves_the_embeddings_in_their_dtype(tmp_path: Path):
    model = baseline.load(make_checkpoint(tmp_path, tied=True))
    assert model.get_output_embeddings().weight.dtype == torch.float32
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_top_k_is_cut_to_the_vocabulary(source: Path):
    tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
    found = baseline.score(baseline.load(source), tokens, 1000, lambda *_: None)
    assert found.top_ids.shape == (2, 7, VOCAB)
    np.testing.assert_allclose(np.exp(found.top_logprob).sum(-1), 1.0, atol=1e-5)


def test_too_little_text_is_refused_with_both_numbers(source: Path, text: Path, tmp_path: Path):
    with pytest.raises(DataError, match="make 16 whole sequences of 32, not 999"):
        build_baseline(job(source, text, max_sequences=999), tmp_path, lambda *_: None)


def test_a_tokenizer_larger_than_the_model_is_refused(text: Path, tmp_path: Path):
    small = make_checkpoint(tmp_path / "small", vocab_size=40)
    said = r"heldout\.jsonl:\d uses T = 51, a = 64, b = 65, e = 68, f = 69, 14 more, the model has 40 tokens"
    with pytest.raises(DataError, match=said):
        build_baseline(job(small, text), tmp_path, lambda *_: None)


def test_a_checkpoint_that_gives_nan_cannot_be_a_baseline(source: Path):
    model = baseline.load(source)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(SourceError, match="not finite in sequences 0 to 1"):
        baseline.score(model, np.ones((2, 8), dtype=np.int32), TOP_K, lambda *_: None)


def test_a_directory_without_weights_is_a_source_error(source: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(SourceError, match="cannot load the checkpoint"):
        baseline.load(tmp_path)


def test_soft_caps_are_in_the_baseline(tmp_path: Path):
    """Transformers' fast attention leaves them out without a word."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "head_dim": 16,
    }
    config = Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, attn_logit_softcapping=0.1)
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(tmp_path)
    tokens = torch.arange(12).view(1, 12)
    with torch.no_grad():
        found, exact, fast = (
            each.eval()(tokens, use_cache=False).logits
            for each in (
                baseline.load(tmp_path),
                Gemma2ForCausalLM.from_pretrained(tmp_path, attn_implementation="eager"),
                Gemma2ForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa"),
            )
        )
    torch.testing.assert_close(found, exact)
    assert not torch.allclose(found, fast, atol=1e-2)
