"""Engines that are really compiled: every fmt, several ranks, and what a killed rank does."""

import json
import os
import signal
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch

from pipeline.backend.loaded_engine import Sampling
from pipeline.engines.aoti.aoti_runner import load
from pipeline.engines.aoti.group import Ranks
from pipeline.errors import BuildFailed, SourceError
from recipes.precision import Precision
from tests.jobs import build_aoti as build
from tests.pipeline.engines import checkpoints
from tests.pipeline.engines.sharded import MIXED, Toy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # torch's compiler warns of torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]

PARAMS: dict[str, Any] = {
    "backend": "aoti", "target": "host", "max_batch_size": 4, "max_seq_len": 40,
    "options": {"dtype": "float32", "threads": 1}, "toolchain": {"torch": torch.__version__},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 251, (4, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """Builds an engine; returns its directory and the logits (B, T, V) that a plain model gives."""

    def made(fmt, tokens, tp=1, pp=1, layers=1, kv_cache="auto"):
        root = tmp_path_factory.mktemp("engine")
        source = checkpoints.source(root / "source", num_hidden_layers=layers)
        toy = Toy(source, Precision.parse(fmt), kv_cache)
        plain = fmt == "none" and kv_cache == "auto"
        out, sharded = root / "out", root / "sharded"
        checkpoints.shard(source, tp, pp, sharded) if plain else toy.write(sharded, tp, pp)
        out.mkdir()
        reports = []
        options: dict[str, Any] = {**PARAMS["options"], "autotune": fmt == "int8_sq"}
        params = {**PARAMS, "options": options, "tp": tp, "pp": pp, "format": fmt}
        job = {"params": params, "places": {}, "inputs": {"sharded_checkpoint": str(sharded)}}
        build(job, out, lambda *report: reports.append(report))
        assert reports[-1][0] == reports[-1][1] > 0
        return out, toy.logits(tokens)

    return made


@pytest.fixture(scope="module")
def plain(make, tokens: torch.Tensor):
    return make("none", tokens, layers=2)


@pytest.fixture(scope="module")
def sharded(make, tokens: torch.Tensor):
    return make("none", tokens, tp=2, pp=2, layers=2)


@pytest.fixture(scope="module")
def mixed(make, tokens: torch.Tensor):
    return make(MIXED, tokens, tp=2, pp=2, layers=2, kv_cache="fp8")


def close(found: torch.Tensor, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


def test_unquantized_engine_equals_transformers_for_every_batch_and_time(plain, tokens: torch.Tensor):
    directory, expected = plain
    with load(directory) as engine:
        for batch, time in ((1, 1), (1, 24), (2, 1), (4, 24), (3, 7)):
            close(engine.logits(tokens[:batch, :time]), expected[:batch, :time])


def test_decoding_through_the_cache_equals_one_pass_over_the_whole(plain, tokens: torch.Tensor):
    directory, _ = plain
    prompts = [tokens[0, :9].tolist(), tokens[1, :4].tolist()]
    with load(directory) as engine:
        for asked in (prompts, prompts[:1], prompts[1:]):
            heard: list[Any] = []
            texts = engine.generate(asked, 8, on_tokens=heard.append)
            assert [list(text) for text in zip(*heard, strict=True)] == texts
            for prompt, text in zip(asked, texts, strict=True):
                whole = torch.tensor([prompt + text])
                assert engine.logits(whole)[0, len(prompt) - 1 : -1].argmax(-1).tolist() == text


def test_generation_stops_at_stop_tokens_and_at_the_end_of_the_cache(plain, tokens: torch.Tensor):
    directory, _ = plain
    prompt = tokens[0, :9].tolist()
    with load(directory) as engine:
        free = engine.generate([prompt], 100)[0]
        assert len(prompt) + len(free) == PARAMS["max_seq_len"]
        stopped = engine.generate([prompt], 100, Sampling(stop=(free[3],)))[0]
        assert stopped == free[: free.index(free[3]) + 1]
        sampled = [engine.generate([prompt], 12, Sampling(temperature=2.0, seed=seed)) for seed in (1, 1, 2)]
        assert sampled[0] == sampled[1] != sampled[2]


def test_scores_are_the_log_probabilities_of_the_logits(plain, tokens: torch.Tensor):
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


def test_two_by_two_ranks_equal_one(sharded, plain, tokens: torch.Tensor):
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


@pytest.mark.parametrize("unread", [False, True])
def test_a_killed_rank_ends_the_run_with_its_number(sharded, tokens: torch.Tensor, unread: bool):
    directory, _ = sharded
    with load(directory) as engine:
        assert isinstance(engine.ranks, Ranks)
        processes = engine.ranks.processes
        victim = processes[2]
        kill = Timer(1.0 if unread else 0.0, os.kill, (victim.pid, signal.SIGKILL))
        if unread:  # the call reaches the pipe and is never read: the kernel resets the connection
            os.kill(victim.pid, signal.SIGSTOP)
        kill.start()
        if not unread:
            victim.join()
        with pytest.raises(BuildFailed, match=r"rank . of 4"):
            engine.logits(tokens)
        kill.join()
    assert not any(process.is_alive() for process in processes)


def test_a_missing_weight_is_named_before_anything_runs(plain, tmp_path: Path):
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


def nearly(found: torch.Tensor, expected) -> None:
    """Compares logits whose inputs were rounded: one on the boundary of two values may take the other."""
    error = (found - expected).abs() / expected.std()
    assert error.amax(-1).median() < 1e-3  # most tokens have none
    assert error.mean() < 1e-2


REST = {
    "default": "fp8",
    "except": {
        "model.layers.0.self_attn.o_proj": "int4_awq",
        "model.layers.0.self_attn.*": "fp8_rowwise",
        "model.layers.0.mlp.down_proj": "int8_wo",
    },
}
"""The formats that MIXED leaves out."""


@pytest.mark.parametrize(("fmt", "kv_cache"), [("int8_sq", "auto"), (REST, "int8")], ids=["int8_sq", "rest"])
def test_a_quantized_engine_equals_its_emulation(make, tokens: torch.Tensor, fmt, kv_cache: str):
    directory, expected = make(fmt, tokens, kv_cache=kv_cache)
    with load(directory) as engine:
        nearly(engine.logits(tokens), expected)
        for row in range(4):
            nearly(engine.logits(tokens[row : row + 1, :1]), expected[row : row + 1, :1])
        prompts = [tokens[0, :9].tolist()]
        [text] = engine.generate(prompts, 8)  # through the graph of single tokens, and its cache
        whole = torch.tensor([prompts[0] + text])
        agreed = engine.logits(whole)[0, 8:-1].argmax(-1) == torch.tensor(text)
        assert agreed.float().mean() >= 0.75


def test_mixed_precision_and_an_eight_bit_cache_on_two_by_two_ranks(mixed, tokens: torch.Tensor):
    directory, expected = mixed
    with load(directory) as engine:
        nearly(engine.logits(tokens), expected)
        scores = next(engine.score(tokens, tokens, tokens.unsqueeze(-1)))
        nearly(scores.targets.unsqueeze(-1), expected.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)))
        for row in range(4):  # through the graph of single tokens
            nearly(engine.logits(tokens[row : row + 1, :1]), expected[row : row + 1, :1])
        assert len(engine.generate([tokens[0, :9].tolist()], 6)[0]) == 6
    about = json.loads((directory / "engine.json").read_text())
    assert about["format"] == "mixed"
    assert about["linears"] == {"fp8": 3, "int4_wo": 1, "int8_sq": 3, "none": 1, "w4a8_awq": 2}
    assert about["kv_cache"] == "float8_e4m3fn"
    assert about["kv_bytes_per_token"] == 2 * 1 * 1 * 64  # one byte instead of four
    assert about["kv_cache_bytes"] == 4 * 41 * 128
    # Stages of other formats are other code.
    assert len(set(about["stages"])) == 2


def test_engine_json_says_what_was_built(sharded):
    about = json.loads((sharded[0] / "engine.json").read_text())
    assert (about["tp"], about["pp"], about["world_size"], about["dtype"]) == (2, 2, 4, "float32")
    assert about["stages"] == ["stage0.pt2", "stage1.pt2"]
    assert set(about["weight_bytes"]) == {f"rank{rank}.safetensors" for rank in range(4)}
    # Two tensors, one layer, one KV head of 64 values, four bytes each.
    assert about["kv_bytes_per_token"] == 2 * 1 * 1 * 64 * 4
    assert (about["kv_cache"], about["kv_cache_bytes"]) == ("float32", 4 * 41 * 512)
    assert (sharded[0] / "tokenizer" / "tokenizer.json").is_file()
