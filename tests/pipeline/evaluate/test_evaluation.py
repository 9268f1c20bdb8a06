"""From an engine's scores to the records that the gate reads, with exact distributions as the engine."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import pytest
import torch
from numpy.random._generator import Generator
from safetensors.numpy import save_file

from pipeline.backend.loaded_engine import LoadedEngine
from pipeline.errors import BuildFailed, SourceError
from pipeline.evaluate.evaluation import evaluate, proven_twin
from pipeline.evaluate.gate import judge, read_records
from pipeline.evaluate.load_engine import runner_of
from recipes.schema import Limits

SEQUENCES, LENGTH, VOCAB = 12, 20, 40
STRICT = Limits(kl=1e-9, top1_agreement=1.0, perplexity_ratio=1.0)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def at(logprob, ids):
    return np.take_along_axis(logprob, ids, -1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return 2 * rng.standard_normal((SEQUENCES, LENGTH - 1, VOCAB))


def write_baseline(directory, rng, logits, top_k):
    tokens = rng.integers(0, VOCAB, (SEQUENCES, LENGTH)).astype(np.int32)
    logprob = log_softmax(logits)
    ids = np.argsort(-logprob, axis=-1)[..., :top_k]
    directory.mkdir()
    save_file({"tokens": tokens}, directory / "tokens.safetensors")
    save_file(
        {
            "target_logprob": np.ascontiguousarray(at(logprob, tokens[:, 1:, None])[..., 0], np.float32),
            "top_ids": np.ascontiguousarray(ids, np.int32),
            "top_logprob": np.ascontiguousarray(at(logprob, ids), np.float32),
        },
        directory / "records.safetensors",
    )
    return directory


@dataclass(frozen=True)
class Said:
    """Scores of one batch."""

    targets: torch.Tensor
    indices: torch.Tensor
    top1: torch.Tensor


@dataclass(frozen=True)
class FixedEngine:
    """An engine that says the same logits whatever it reads, five sequences at a time."""

    logits: np.ndarray

    def score(self, tokens, targets, indices):
        assert tokens.shape == targets.shape == indices.shape[:2] == self.logits.shape[:2]
        logprob = torch.from_numpy(log_softmax(self.logits).astype(np.float32))
        for part in torch.arange(len(tokens)).split(5):
            said, wanted = logprob[part], targets[part]
            yield Said(
                said.gather(-1, wanted[..., None])[..., 0], said.gather(-1, indices[part]), said.argmax(-1)
            )

    def measure(self, batch, prompt_len, new_tokens, repeats) -> NoReturn:
        raise AssertionError("not asked for")


def run(tmp_path: Path, rng: Generator, base, cand, top_k: int):
    out = tmp_path / "out"
    out.mkdir()
    told = []
    baseline = write_baseline(tmp_path / "baseline", rng, base, top_k)
    evaluate(cast("LoadedEngine", FixedEngine(cand)), baseline, out, lambda *event: told.append(event))
    assert [done for done, *_ in told] == [0, 5 * LENGTH, 10 * LENGTH, 12 * LENGTH]
    return json.loads((out / "scores.json").read_text()), read_records(out / "samples.jsonl")


def test_the_source_checkpoint_itself_passes_the_strictest_gate(
    tmp_path: Path, rng: np.random.Generator, logits: np.ndarray
):
    scores, records = run(tmp_path, rng, logits, logits, top_k=8)
    assert judge(STRICT, records).outcome == "PASS"
    assert scores["metrics"]["kl"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (scores["sequences"], scores["tokens"], scores["top_k"]) == (12, 12 * 19, 8)


def test_with_the_whole_vocabulary_the_scores_are_exact(
    tmp_path: Path, rng: np.random.Generator, logits: np.ndarray
):
    worse = logits + 0.5 * rng.standard_normal(logits.shape)
    scores, records = run(tmp_path, rng, logits, worse, top_k=VOCAB)
    base, cand = log_softmax(logits), log_softmax(worse)
    kl = (np.exp(base) * (base - cand)).sum(-1)
    assert scores["metrics"]["kl"]["value"] == pytest.approx(kl.mean(), rel=1e-4)
    agreement = (base.argmax(-1) == cand.argmax(-1)).mean()
    assert scores["metrics"]["top1_agreement"]["value"] == pytest.approx(agreement)
    assert [record.kl for record in records] == pytest.approx(list(kl.sum(-1)), rel=1e-4)
    assert judge(STRICT, records).outcome == "FAIL"


def test_few_likely_tokens_give_a_lower_bound_and_say_what_they_leave_out(
    tmp_path: Path, rng: np.random.Generator, logits: np.ndarray
):
    worse = logits + 0.5 * rng.standard_normal(logits.shape)
    base, cand = log_softmax(logits), log_softmax(worse)
    scores, _ = run(tmp_path, rng, logits, worse, top_k=4)
    assert 0 < scores["metrics"]["kl"]["value"] < (np.exp(base) * (base - cand)).sum(-1).mean()
    left = 1 - np.sort(np.exp(base), axis=-1)[..., -4:].sum(-1)
    assert scores["mean_tail_mass"] == pytest.approx(left.mean(), rel=1e-3)


def test_an_engine_that_gives_nan_is_written_down_and_fails(
    tmp_path: Path, rng: np.random.Generator, logits: np.ndarray
):
    broken = logits.copy()
    broken[3, 7] = math.nan
    scores, records = run(tmp_path, rng, logits, broken, top_k=8)
    assert [record.finite for record in records] == [n != 3 for n in range(SEQUENCES)]
    assert scores["metrics"]["kl"] == {"value": None, "low": None, "high": None}
    assert judge(Limits(kl=100), records).outcome == "FAIL"


def test_a_directory_without_an_engine_has_no_runner(tmp_path: Path):
    with pytest.raises(SourceError, match=r"holds no engine \(no engine.json\)"):
        runner_of(tmp_path)


@dataclass(frozen=True)
class Counting:
    """Continues with the next number; its twin scores the number `step` further as most likely."""

    step: int

    def generate(self, prompts, max_new_tokens, sampling, on_tokens):
        return [[(prompt[-1] + new + 1) % VOCAB for new in range(max_new_tokens)] for prompt in prompts]

    def score(self, tokens, targets, indices):
        yield Said(torch.zeros(tokens.shape), torch.zeros(indices.shape), (tokens + self.step) % VOCAB)


def counting(step: int) -> LoadedEngine:
    """An engine of which only these two methods may be called."""
    return cast("LoadedEngine", Counting(step))


def test_a_twin_is_named_where_it_scores_what_the_served_engine_generates():
    about = {"scored": "scoring", "vocab_size": VOCAB, "max_seq_len": 32}
    found = proven_twin(counting(1), about)
    assert (found["scored"], found["proof"]["agreement"]) == ("scoring", 1.0)
    with pytest.raises(BuildFailed, match=r"generates \[.*where it scores"):
        proven_twin(counting(2), about)
    assert proven_twin(counting(2), {**about, "scored": ""}) == {}
