"""Engines that are really compiled: every fmt, several ranks, and what a killed rank does."""

import json
import os
import signal

import pytest
import torch

from pipeline.engines.aoti.build import build
from pipeline.engines.aoti.runner import Sampling, load
from pipeline.errors import BuildFailed, SourceError
from tests.pipeline.engines import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # torch's compiler warns of torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]

PARAMS = {
    "backend": "aoti", "target": "host", "max_batch_size": 4, "max_seq_len": 40,
    "options": {"dtype": "float32", "threads": 1}, "toolchain": {"torch": torch.__version__},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 251, (4, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Builds an engine; returns its directory and the logits (B, T, V) that transformers gives."""

    def made(fmt, tokens, tp=1, pp=1, layers=1):
        root = tmp_path_factory.mktemp("engine")
        source = checkpoints.source(root / "source", num_hidden_layers=layers)
        quantized = checkpoints.quantize(source, fmt, root / "quantized")
        sharded = checkpoints.shard(quantized, fmt, tp, pp, root / "sharded")
        out = root / "out"
        out.mkdir()
        reports = []
        options = {**PARAMS["options"], "autotune": fmt == "int8_sq"}
        params = {**PARAMS, "options": options, "tp": tp, "pp": pp, "format": fmt}
        job = {"params": params, "places": {}, "inputs": {"sharded_checkpoint": str(sharded)}}
        build(job, out, lambda *report: reports.append(report))
        assert reports[-1][0] == reports[-1][1] > 0
        with torch.no_grad():
            return out, checkpoints.reference(source, quantized, fmt)(tokens).logits

    return made


@pytest.fixture(scope="module")
def plain(make, tokens):
    return make("none", tokens, layers=2)


@pytest.fixture(scope="module")
def sharded(make, tokens):
    return make("none", tokens, tp=2, pp=2, layers=2)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


def test_unquantized_engine_equals_transformers_for_every_batch_and_time(plain, tokens):
    directory, expected = plain
    with load(directory) as engine:
        for batch, time in ((1, 1), (1, 24), (2, 1), (4, 24), (3, 7)):
            close(engine.logits(tokens[:batch, :time]), expected[:batch, :time])


def test_decoding_through_the_cache_equals_one_pass_over_the_whole(plain, tokens):
    directory, _ = plain
    prompts = [tokens[0, :9].tolist(), tokens[1, :4].tolist()]
    with load(directory) as engine:
        for asked in (prompts, prompts[:1], prompts[1:]):
            heard = []
            texts = engine.generate(asked, 8, on_tokens=heard.append)
            assert [list(text) for text in zip(*heard, strict=True)] == texts
            for prompt, text in zip(asked, texts, strict=True):
                whole = torch.tensor([prompt + text])
                assert engine.logits(whole)[0, len(prompt) - 1 : -1].argmax(-1).tolist() == text


def test_generation_stops_at_stop_tokens_and_at_the_end_of_the_cache(plain, tokens):
    directory, _ = plain
    prompt = tokens[0, :9].tolist()
    with load(directory) as engine:
        free = engine.generate([prompt], 100)[0]
        assert len(prompt) + len(free) == PARAMS["max_seq_len"]
        stopped = engine.generate([prompt], 100, Sampling(stop=(free[3],)))[0]
        assert stopped == free[: free.index(free[3]) + 1]
        sampled = [engine.generate([prompt], 12, Sampling(temperature=2.0, seed=seed)) for seed in (1, 1, 2)]
        assert sampled[0] == sampled[1] != sampled[2]


def test_scores_are_the_log_probabilities_of_the_logits(plain, tokens):
    directory, expected = plain
    indices = expected.topk(3).indices
    with load(directory) as engine:
        scores = next(engine.score(tokens, tokens, indices))
    logprobs = expected.log_softmax(-1)
    close(scores.targets, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
    close(scores.indices, logprobs.gather(-1, indices))
    assert torch.equal(scores.top1, expected.argmax(-1))


def test_more_than_the_engine_was_built_for_is_refused(plain):
    directory, _ = plain
    with load(directory) as engine, pytest.raises(SourceError, match=r"max_batch_size: 5 .* built for 4"):
        engine.logits(torch.zeros((5, 2), dtype=torch.int64))


def test_two_by_two_ranks_equal_one(sharded, plain, tokens):
    directory, expected = sharded
    with load(directory) as engine, load(plain[0]) as alone:
        close(engine.logits(tokens), expected)
        close(engine.logits(tokens[:1, :1]), expected[:1, :1])
        prompts = [tokens[0, :9].tolist(), tokens[1, :4].tolist()]
        for sampling in (Sampling(), Sampling(temperature=1.5, seed=3)):
            assert engine.generate(prompts, 6, sampling) == alone.generate(prompts, 6, sampling)
        speed = engine.measure(2, 8, 4, 1)
    assert speed["tokens_per_s"] > 0
    assert speed["itl_ms_p95"] >= speed["itl_ms_p50"] > 0


def test_a_killed_rank_ends_the_run_with_its_number(sharded, tokens):
    directory, _ = sharded
    with load(directory) as engine:
        victim = engine.ranks.processes[2]
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(BuildFailed, match=r"rank . of 4"):
            engine.logits(tokens)
    assert not any(process.is_alive() for process in engine.ranks.processes)


def test_a_missing_weight_is_named_before_anything_runs(plain, tmp_path):
    from safetensors.torch import load_file, save_file

    directory, _ = plain
    for file in directory.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            os.link(file, tmp_path / file.name)
    tensors = load_file(directory / "rank0.safetensors")
    del tensors["transformer.ln_f.weight"]
    save_file(tensors, tmp_path / "rank0.safetensors")
    with pytest.raises(SourceError, match=r"transformer.ln_f.weight"), load(tmp_path):
        pass


@pytest.mark.parametrize("fmt", ["fp8", "int8_sq", "int4_awq", "int8_wo"])
def test_a_quantized_engine_equals_its_emulation(make, tokens, fmt):
    directory, expected = make(fmt, tokens)
    with load(directory) as engine:
        spread = expected.std()
        error = (engine.logits(tokens) - expected).abs() / spread
        # An input on the boundary of two 8-bit values may take the neighbouring step; most tokens have none.
        assert error.amax(-1).median() < 1e-3
        assert error.mean() < 5e-3
        first = (engine.logits(tokens[:1, :1]) - expected[:1, :1]).abs() / spread
        assert first.mean() < 2e-2


def test_engine_json_says_what_was_built(sharded):
    about = json.loads((sharded[0] / "engine.json").read_text())
    assert (about["tp"], about["pp"], about["world_size"], about["dtype"]) == (2, 2, 4, "float32")
    assert about["stages"] == ["stage0.pt2", "stage1.pt2"]
    assert set(about["weight_bytes"]) == {f"rank{rank}.safetensors" for rank in range(4)}
    # Two tensors, one layer, one KV head of 64 values, four bytes each.
    assert about["kv_bytes_per_token"] == 2 * 1 * 1 * 64 * 4
    assert (sharded[0] / "tokenizer" / "tokenizer.json").is_file()
