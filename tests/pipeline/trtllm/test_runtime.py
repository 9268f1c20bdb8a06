"""Engines of both backends through a contract TensorRT-LLM that really computes: score, generate, measure."""

import json
import os
import signal
import subprocess  # noqa: TID251 a caller is killed from outside
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from pipeline.backend.loaded_engine import Sampling
from pipeline.engines.tensorrt import tensorrt_runner as tensorrt
from pipeline.engines.trtllm_torch import autotuner
from pipeline.engines.trtllm_torch import torch_runner as trtllm_torch
from pipeline.errors import BackendUnavailable, BuildFailed, SourceError
from pipeline.evaluate import evaluation
from pipeline.evaluate.load_engine import runner_of
from pipeline.evaluate.measurement import FIGURES, measure
from pipeline.process import host
from pipeline.step.step_parameters import Timing
from tests.contract import runtime
from tests.contract.toolchain import behave as behave_host
from tests.pipeline.engines import checkpoints, trt
from tests.pipeline.trtllm import contract
from tests.present import present

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.source(tmp_path_factory.mktemp("model") / "source")


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 251, (5, 20), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def expected(source: Path, tokens: torch.Tensor) -> torch.Tensor:
    return contract.logprobs(source, tokens)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Puts one toolchain of a version on PATH for the module's tests; gives its directory."""
    made, before = {}, os.environ["PATH"]

    def use(version) -> Path:
        if version not in made:
            made[version] = runtime.toolchain(tmp_path_factory.mktemp("trtllm") / version, version)
        os.environ["PATH"] = f"{made[version] / 'bin'}:{before}"
        return made[version]

    yield use
    os.environ["PATH"] = before


@pytest.fixture(scope="module")
def torch_engine(source: Path, path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    chain = contract.found(path("1.3.0rc15"))
    return contract.torch_engine(source, chain, tmp_path_factory.mktemp("engine") / "out", tp=2)


def test_a_torch_engine_is_evaluated_and_measured_as_published(
    torch_engine: Path,
    path: Callable[[str], Path],
    source: Path,
    tokens: torch.Tensor,
    expected: torch.Tensor,
    tmp_path: Path,
):
    path("1.3.0rc15")
    published = {file: file.read_bytes() for file in torch_engine.rglob("*.json")}
    with runner_of(torch_engine).load(torch_engine) as engine:
        contract.scores_are(engine, tokens, expected)

        greedy = expected[0, -1].argmax().item()
        heard: list[Any] = []
        prompts = [tokens[0].tolist(), tokens[1, :7].tolist()]
        texts = engine.generate(prompts, 4, Sampling(), on_tokens=heard.append)
        assert texts[0][0] == greedy
        assert [len(text) for text in texts] == [4, 4]
        assert [t for step in heard for t in step[:1] if t is not None] == texts[0]

        top = expected.topk(8)
        baseline = {
            "top_ids": top.indices[:, :-1].int(),
            "top_logprob": top.values[:, :-1],
            "target_logprob": expected[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0],
        }
        (tmp_path / "out").mkdir()
        whole = {name: np.ascontiguousarray(values.numpy()) for name, values in baseline.items()}
        save_file(whole, tmp_path / "records.safetensors")
        save_file({"tokens": tokens.numpy().astype(np.int32)}, tmp_path / "tokens.safetensors")
        evaluation.evaluate(engine, tmp_path, tmp_path / "out", lambda *_: None)
        metrics = json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"]
        assert metrics["top1_agreement"]["value"] == 1
        assert abs(metrics["kl"]["value"]) < 1e-4

        timing = Timing(prompt_len=8, new_tokens=4, repeats=1)
        (row,) = measure(engine, [2], timing, lambda *_: None)["rows"]
        assert row.keys() == {"batch_size", *FIGURES}
        assert row["tokens_per_s"] > row["tokens_per_s_per_user"] / 10 > 0
        assert row["ttft_ms_p95"] >= row["ttft_ms_p50"] > 0
    assert {file: file.read_bytes() for file in torch_engine.rglob("*.json")} == published


def test_a_torch_engine_holds_what_was_asked_and_what_the_autotuner_found(torch_engine: Path, source: Path):
    about = json.loads((torch_engine / "engine.json").read_text())
    options = yaml.safe_load((torch_engine / "llm_options.yaml").read_text())
    assert list(options) == sorted(options)
    assert options == {name: value for name, value in about["settings"].items() if value is not None}
    assert about["settings"]["torch_compile_config"] is None
    assert options["tensor_parallel_size"] == about["tp"] == 2
    assert options["cuda_graph_config"] == {"batch_sizes": [1, 2, 3], "enable_padding": True}
    linked = torch_engine / "checkpoint" / "model.safetensors"
    assert linked.samefile(source / "model.safetensors")

    cache = json.loads((torch_engine / "tuning" / autotuner.FILE).read_text())
    assert {"rank_0", "rank_1"} < cache.keys()
    identity = json.loads((torch_engine / "tuning" / autotuner.IDENTITY).read_text())
    assert identity["gpu"] == contract.GPU.name
    assert identity["world_size"] == 2
    report = json.loads((torch_engine / "tuning" / "build_report.json").read_text())
    assert report["proof"]["agreement"] == 1
    assert report["autotuner"] == {"files": [autotuner.FILE], "why": "", "earlier": "there are none"}


def test_an_earlier_warm_up_is_the_start_of_a_new_one(
    torch_engine: Path, path: Callable[[str], Path], source: Path, tmp_path: Path
):
    chain = contract.found(path("1.3.0rc15"))
    places = {"tuning": str(torch_engine / "tuning")}
    again = contract.torch_engine(source, chain, tmp_path / "again", places, tp=2)
    assert json.loads((again / "tuning" / "build_report.json").read_text())["autotuner"]["earlier"] == "used"
    times = [(engine / "tuning" / autotuner.FILE).read_text() for engine in (again, torch_engine)]
    assert times[0] == times[1]
    assert outside_tuning(again) == outside_tuning(torch_engine)


def outside_tuning(engine):
    """Bytes of an engine that are its identity: no time, no path, no word of how its build went."""
    files = (path for path in engine.rglob("*") if path.is_file())
    named = {path.relative_to(engine).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in named.items() if "tuning" not in name.split("/")}


@pytest.mark.parametrize(
    ("version", "why"),
    [("1.0.0", "TensorRT-LLM 1.0.0 keeps no autotuner cache on disk"), ("1.2.0", "")],
)
def test_versions_keep_what_the_autotuner_found_in_their_own_way(
    version: str, why: str, path: Callable[[str], Path], source: Path, tmp_path: Path
):
    chain = contract.found(path(version))
    out = contract.torch_engine(source, chain, tmp_path / "out", max_batch_size=1)
    made = json.loads((out / "tuning" / "build_report.json").read_text())["autotuner"]
    assert made["why"] == why
    assert made["files"] == ([] if why else ["autotuner_cache.rank0.json"])
    assert (out / "tuning" / "identity.json").exists() is not bool(why)


def test_no_warm_up_shares_a_gpu_with_others(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = runtime.toolchain(tmp_path / "trtllm", "1.3.0rc15", processes=("0, 4242, python, 900",))
    contract.use(monkeypatch, directory)
    chain = contract.found(directory)
    with pytest.raises(BackendUnavailable, match="needs 2 idle GPUs, one per rank; only GPU 1 of its type"):
        contract.torch_engine(source, chain, tmp_path / "both", tp=2)
    assert list((tmp_path / "both").iterdir()) == []
    behave_host(directory, used_mib=30000)
    with pytest.raises(BackendUnavailable, match="30000 MiB by processes that are not visible here"):
        contract.torch_engine(source, chain, tmp_path / "one")


def test_an_engine_that_answers_otherwise_than_it_scores_is_not_built(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directory = runtime.toolchain(tmp_path / "trtllm", "1.0.0", wrong_weights=True)
    contract.use(monkeypatch, directory)
    with pytest.raises(BuildFailed, match=r"the engine loads, but generates .* its weights or its positions"):
        contract.torch_engine(source, contract.found(directory), tmp_path / "out")


@pytest.mark.parametrize("layout", [("0.12.0", 1, 1), ("0.16.0", 2, 2), ("1.1.0", 4, 1)])
def test_a_built_engine_scores_as_transformers_does(
    layout: tuple[str, int, int],
    path: Callable[[str], Path],
    source: Path,
    tokens: torch.Tensor,
    expected: torch.Tensor,
    tmp_path: Path,
):
    version, tp, pp = layout
    directory = path(version)
    behave_host(directory, gpus=4)
    host._gpus.cache_clear()
    out = contract.tensorrt_engine(source, contract.found(directory), tmp_path, tp, pp)
    with tensorrt.load(out) as engine:
        contract.scores_are(engine, tokens, expected)
        if version != "0.16.0":
            return
        sampled = [
            engine.generate([[1, 2, 3]], 9, Sampling(temperature=2.0, seed=seed)) for seed in (1, 1, 2)
        ]
        assert sampled[0] == sampled[1] != sampled[2]
        stop = engine.generate([[1, 2, 3]], 9)[0]
        assert (
            engine.generate([[1, 2, 3]], 9, Sampling(stop=(stop[2],)))[0] == stop[: stop.index(stop[2]) + 1]
        )
        figures = engine.measure(3, 6, 4, 2)
        assert figures.keys() == set(FIGURES)
        assert figures["tokens_per_s"] > 0
        with pytest.raises(SourceError, match="max_seq_len: 41 is asked for, the engine is built for 40"):
            engine.measure(1, 40, 1, 1)


def test_what_trtllm_build_wrote_is_scored(
    path: Callable[[str], Path], source: Path, tokens: torch.Tensor, expected: torch.Tensor, tmp_path: Path
):
    directory = path("0.17.0")
    sharded = checkpoints.shard(source, 1, 2, tmp_path / "sharded")
    limits: dict[str, Any] = {"max_batch_size": 3, "max_seq_len": 40, "pp": 2}
    trt.run(trt.job(trt.found(directory), source, sharded, **limits), tmp_path / "out")
    with runner_of(tmp_path / "out").load(tmp_path / "out") as engine:
        contract.scores_are(engine, tokens, expected)


@pytest.mark.parametrize(("family", "pp", "windows"), [("mistral", 2, [8, 8]), ("gemma2", 1, [8, 40])])
def test_a_built_engine_sees_as_far_as_its_model(
    family: str,
    pp: int,
    windows: list[int],
    path: Callable[[str], Path],
    tokens: torch.Tensor,
    tmp_path: Path,
):
    directory = path("1.1.0")
    source = checkpoints.source(tmp_path / "source", family)
    sharded = checkpoints.shard(source, 1, pp, tmp_path / "sharded")
    limits: dict[str, Any] = {"max_batch_size": 3, "max_seq_len": 40, "pp": pp}
    out = tmp_path / "out"
    trt.run(trt.job(trt.found(directory), source, sharded, **limits), out)
    about = trt.read(out, "engine.json")
    assert about["attention_windows"] == windows
    expected = contract.logprobs(source, tokens)
    with runner_of(out).load(out) as engine:
        contract.scores_are(engine, tokens, expected)
    (out / "engine.json").write_text(json.dumps({**about, "attention_windows": None}))
    with runner_of(out).load(out) as engine, pytest.raises(AssertionError, match="not close"):
        contract.scores_are(engine, tokens, expected)


def test_a_runtime_that_dies_is_reported(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = runtime.toolchain(tmp_path / "trtllm", "0.16.0", die_in="generate")
    contract.use(monkeypatch, directory)
    out = contract.tensorrt_engine(source, contract.found(directory), tmp_path)
    prompt = torch.tensor([[1, 2, 3]])
    with (
        pytest.raises(
            BuildFailed, match=r"TensorRT-LLM 0\.16\.0, score: the process ended by itself, killed by SIGKILL"
        ),
        tensorrt.load(out) as engine,
    ):
        list(engine.score(prompt, prompt, prompt.unsqueeze(-1)))


def test_the_worker_ends_when_its_caller_is_killed(path: Callable[[str], Path], source: Path, tmp_path: Path):
    directory = path("0.16.0")
    out = contract.tensorrt_engine(source, contract.found(directory), tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from pipeline.engines.tensorrt import tensorrt_runner as runner\n"
        "with runner.load(Path(sys.argv[1])) as engine:\n"
        "    engine.generate([[1]], 1)\n"
        "    print(engine.session.service.child.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        worker = int(present(caller.stdout).readline())
        assert Path(f"/proc/{worker}").exists()
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    ends = time.monotonic() + 15
    while _runs(worker) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    """Whether a process is there, and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_trtllm_bench_that_writes_no_report_fails_the_measurement(
    torch_engine: Path, path: Callable[[str], Path]
):
    directory = path("1.3.0rc15")
    runtime.behave(directory, report=False)
    try:
        with (
            pytest.raises(BuildFailed, match="trtllm-bench ended well without a report"),
            trtllm_torch.load(torch_engine) as engine,
        ):
            engine.measure(1, 4, 2, 1)
    finally:
        runtime.behave(directory)


def test_engines_are_refused_where_they_were_not_built_for(torch_engine: Path, path: Callable[[str], Path]):
    directory = path("1.3.0rc15")
    behave_host(directory, gpu="NVIDIA A100-SXM4-80GB", compute_cap="8.0")
    host._gpus.cache_clear()
    try:
        with pytest.raises(BackendUnavailable) as caught, trtllm_torch.load(torch_engine):
            pass
    finally:
        behave_host(directory)
        host._gpus.cache_clear()
    assert "compute capability: built on 90, this host has 80" in str(caught.value)
    assert "GPU: built on NVIDIA H100 80GB HBM3, this host has NVIDIA A100-SXM4-80GB" in str(caught.value)
