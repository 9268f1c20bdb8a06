"""The whole engine step with the contract toolchain: every version, every layout, every way to fail."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load

from pipeline.errors import BackendUnavailable, BuildFailed, SourceError
from recipes.schema import Model, Speculative
from tests.contract.toolchain import VERSIONS, behave, toolchain
from tests.pipeline.engines import trt
from tests.pipeline.engines.checkpoints import shard
from tests.pipeline.engines.checkpoints import source as source_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_of(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def checkpoints(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(tp, pp) -> the sharded checkpoint."""
    root, made = tmp_path_factory.mktemp("sharded"), {}

    def of(tp: int = 1, pp: int = 1) -> Path:
        if (tp, pp) not in made:
            made[tp, pp] = shard(source, tp, pp, root / f"tp{tp}_pp{pp}")
        return made[tp, pp]

    return of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return toolchain(tmp_path / "trtllm")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_with_options_that_it_knows(
    version: str, source: Path, checkpoints: Callable[..., Path], tmp_path: Path
):
    found = trt.found(toolchain(tmp_path / "trtllm", version))
    seen: list[tuple[int, int, str]] = []
    trt.run(trt.job(found, source, checkpoints()), tmp_path / "out", lambda *event: seen.append(event))
    out = tmp_path / "out"
    engine = trt.read(out, "engine.json")
    assert engine["toolchain"]["tensorrt_llm"] == version
    assert (engine["world_size"], engine["sm"], engine["gpu"]) == (1, 90, "NVIDIA H100 80GB HBM3")
    assert [one for one in engine["differences"] if one["reduces"]] == []
    assert {"rank0.engine", "config.json", "engine.json", "tokenizer", "tuning"} == {
        path.name for path in out.iterdir()
    }
    assert seen[-1] == (4, 4, "phases")


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
def test_every_rank_gets_its_own_weights(
    tp: int, pp: int, source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    checkpoint = checkpoints(tp, pp)
    trt.run(trt.job(trt.found(root), source, checkpoint, tp=tp, pp=pp), tmp_path / "out")
    for rank in range(tp * pp):
        header, _, weights = (tmp_path / "out" / f"rank{rank}.engine").read_bytes().partition(b"\n")
        assert json.loads(header)["rank"] == rank
        assert load(weights).keys() == load((checkpoint / f"rank{rank}.safetensors").read_bytes()).keys()
    engine = trt.read(tmp_path / "out", "engine.json")
    assert len(engine["memory_bytes_per_rank"]) == len(engine["weight_bytes"]) == tp * pp


def test_mpi_starts_the_ranks_where_the_toolchain_says_so(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    found = trt.found(root, launcher="mpirun")
    trt.run(trt.job(found, source, checkpoints(2, 1), tp=2), tmp_path / "out")
    assert trt.read(tmp_path / "out", "engine.json")["world_size"] == 2
    assert trt.read(tmp_path / "out", "tuning/build_report.json")["workers"]["count"] == 2


def test_the_report_tells_phases_memory_and_kernels_left_out(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, skipped_tactics=3)
    trt.run(trt.job(trt.found(root), source, checkpoints()), tmp_path / "out")
    report = trt.read(tmp_path / "out", "tuning/build_report.json")
    assert report["skipped_tactics"] == {"count": 3, "largest_bytes": 3 * 66048}
    assert report["phases_s"]["network"] == [0.25]
    assert report["memory"]["activation_bytes"] == 503420928
    assert report["memory"]["peak_host_bytes"] == round(6978.95 * 2**20)
    assert report["version"] == "0.16.0"


def test_what_the_builder_wrote_goes_to_the_steps_log(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    trt.run(trt.job(trt.found(root), source, checkpoints()), tmp_path / "out")
    assert "Total time of building all engines" in (tmp_path / "out.log").read_text()


def test_an_earlier_timing_cache_of_the_same_key_is_used(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    found = trt.found(root)
    trt.run(trt.job(found, source, checkpoints()), tmp_path / "first")
    again = trt.job(found, source, checkpoints(), earlier=tmp_path / "first" / "tuning")
    trt.run(again, tmp_path / "second")
    assert "Timed 0 layers" in (tmp_path / "second.log").read_text()
    assert trt.read(tmp_path / "second", "tuning/build_report.json")["timing_cache"]["reused"] is True


def test_a_timing_cache_of_another_driver_is_refused_with_the_reason(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    found = trt.found(root)
    trt.run(trt.job(found, source, checkpoints()), tmp_path / "first")
    behave(root, driver="560.28.03")
    trt.run(trt.job(found, source, checkpoints(), earlier=tmp_path / "first" / "tuning"), tmp_path / "second")
    told = trt.read(tmp_path / "second", "tuning/build_report.json")["timing_cache"]
    assert told == {"reused": False, "reason": "it is for driver '550.54.15', now '560.28.03'"}
    assert "0 are in the timing cache" in (tmp_path / "second.log").read_text()


def test_ranks_built_one_after_another_share_what_the_first_timed(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, gpus=1, gpu_memory_mib=1)
    trt.run(trt.job(trt.found(root), source, checkpoints(2, 1), tp=2), tmp_path / "out")
    assert "Timed 0 layers" in (tmp_path / "out.log").read_text()
    why = trt.read(tmp_path / "out", "tuning/build_report.json")["workers"]
    assert why == {"count": 1, "why": "1 GPU for 2 ranks"}


def test_a_cache_lies_only_where_the_engine_is(
    source: Path,
    checkpoints: Callable[..., Path],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    trt.run(trt.job(trt.found(root), source, checkpoints()), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out" / "tuning").iterdir()}
    assert files == {"timing.cache", "timing.json", "build_report.json"}
    assert list(tmp_path.rglob("model.cache")) == []


@pytest.mark.parametrize("launcher", ["trtllm-build", "mpirun"])
def test_a_rank_that_fails_fails_the_build_with_its_reason(
    launcher: str, source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, failing_rank=1)
    work = trt.job(trt.found(root, launcher), source, checkpoints(2, 1), tp=2)
    trt.refused(
        work, tmp_path / "out", BuildFailed, "trtllm-build failed: exit code 1",
        "error in the log: Error Code 10: Internal Error (Could not find any implementation",
        f"log: {tmp_path / 'out.log'}",
    )  # fmt: skip


def test_a_gpu_without_memory_is_named_as_the_cause(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, out_of_memory_rank=0)
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(work, tmp_path / "out", BuildFailed, "the GPU ran out of memory: lower engine.max_batch_size")


def test_a_builder_killed_for_the_hosts_memory_says_so(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, killed_rank=0)
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(
        work, tmp_path / "out", BuildFailed, "killed by SIGKILL; the kernel does this when memory runs out"
    )


def test_a_worker_killed_for_the_hosts_memory_fails_the_build(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, killed_rank=1)
    work = trt.job(trt.found(root), source, checkpoints(2, 1), tp=2)
    trt.refused(work, tmp_path / "out", BuildFailed, "terminated abruptly", "build fewer ranks at once")


def test_a_rank_that_is_missing_after_a_good_end_fails(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, silent_rank=1)
    work = trt.job(trt.found(root), source, checkpoints(2, 1), tp=2)
    trt.refused(work, tmp_path / "out", BuildFailed, "ended well but wrote no rank1.engine")


def test_another_version_than_the_probed_one_is_refused(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, reported_version="0.17.0")
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(
        work, tmp_path / "out", BackendUnavailable,
        "says TensorRT-LLM 0.17.0, the toolchain was probed as 0.16.0",
    )  # fmt: skip


def test_an_engine_that_serves_less_than_asked_is_refused(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, shrunk_batch=2)
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(work, tmp_path / "out", BuildFailed, "max_batch_size: asked 4, built 2")


def test_a_busy_gpu_stops_the_build_before_it_starts(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, processes=("1, 4242, python, 60000",), used_mib=60004, gpus=2)
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(
        work, tmp_path / "out", BackendUnavailable, "needs idle GPUs",
        "GPU 1 (NVIDIA H100 80GB HBM3): pid 4242 (python, 60000 MiB)", "CUDA_VISIBLE_DEVICES",
    )  # fmt: skip
    assert "TensorRT-LLM version" not in (tmp_path / "out.log").read_text()


def test_a_gpu_of_another_capability_is_refused(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, gpu="NVIDIA A100-SXM4-80GB", compute_cap="8.0")
    work = trt.job(trt.found(root), source, checkpoints())
    trt.refused(
        work, tmp_path / "out", BackendUnavailable,
        "the engine is for NVIDIA H100 80GB HBM3, the GPUs here are NVIDIA A100-SXM4-80GB (sm_80)",
    )  # fmt: skip


def test_a_checkpoint_of_another_layout_is_refused(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    work = trt.job(trt.found(root), source, checkpoints(2, 1))
    trt.refused(
        work, tmp_path / "out", SourceError, "tp2_pp1/config.json: tp is 2, the target engine asks for 1"
    )


def test_a_tensor_that_is_missing_is_the_loaders_error(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoints().rglob("*.json"):
        target = damaged / file.relative_to(checkpoints())
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    weights = checkpoints().joinpath("rank0.safetensors").read_bytes()
    (damaged / "rank0.safetensors").write_bytes(weights.replace(b"layers.1.mlp.gate", b"layers.1.mlp.gote"))
    work = trt.job(trt.found(root), source, damaged)
    trt.refused(work, tmp_path / "out", BuildFailed, "Required but not provided tensors", "1.mlp.gate.weight")


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source and sharded checkpoint of a smaller model with the same vocabulary."""
    root = tmp_path_factory.mktemp("draft")
    small = source_of(root / "source", num_hidden_layers=1)
    return small, shard(small, 1, 1, root / "sharded")


PAIR = Speculative(mode="draft_tokens_external", max_draft_len=4, draft=Model(path="draft"))


def test_a_draft_model_is_built_beside_its_target_and_both_fit(
    source: Path, checkpoints: Callable[..., Path], drafting: tuple[Path, Path], root: Path, tmp_path: Path
):
    work = trt.job(trt.found(root), source, checkpoints(), speculative=PAIR, drafting=drafting)
    trt.run(work, tmp_path / "out")
    built = {part: trt.read(tmp_path / "out" / part, "config.json")["build_config"] for part in ("", "draft")}
    assert built[""]["max_draft_len"] == 4
    assert not built["draft"]["max_draft_len"]
    for name in ("tokens_per_block", "use_paged_context_fmha"):
        assert built[""]["plugin_config"][name] == built["draft"]["plugin_config"][name]
    assert (tmp_path / "out" / "draft" / "tuning" / "timing.cache").is_file()
    assert (tmp_path / "out" / "draft" / "engine.json").is_file()


def test_the_twin_that_is_scored_returns_the_logits_of_prompts(
    source: Path, checkpoints: Callable[..., Path], drafting: tuple[Path, Path], root: Path, tmp_path: Path
):
    work = trt.job(trt.found(root), source, checkpoints(), speculative=PAIR, drafting=drafting)
    trt.run(work, tmp_path / "out")
    twin = trt.read(tmp_path / "out" / "scoring", "config.json")["build_config"]
    assert (twin["gather_context_logits"], twin["max_draft_len"]) == (True, 0)


def test_a_draft_model_with_other_tokens_is_refused(
    source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    small = source_of(tmp_path / "small", num_hidden_layers=1, vocab_size=199)
    drafting = (small, shard(small, 1, 1, tmp_path / "sharded"))
    work = trt.job(trt.found(root), source, checkpoints(), speculative=PAIR, drafting=drafting)
    trt.refused(
        work, tmp_path / "out", SourceError, "vocab_size is 199 in the draft model, 251 in the target"
    )


@pytest.mark.parametrize("launcher", ["trtllm-build", "mpirun"])
def test_nothing_runs_on_after_kill_9(
    launcher: str, source: Path, checkpoints: Callable[..., Path], root: Path, tmp_path: Path
):
    behave(root, seconds_per_rank=60)
    work = trt.job(trt.found(root, launcher), source, checkpoints(2, 1), tp=2)
    with trt.running(work, tmp_path / "out") as caller:
        family = _builders(caller.pid)
        os.kill(caller.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    assert list((tmp_path / "out").glob("*.engine")) == []


def _builders(caller: int) -> list[psutil.Process]:
    """Everything below the caller, once both ranks are being built."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        below = psutil.Process(caller).children(recursive=True)
        if sum("trtllm-build" in " ".join(one.cmdline()) and not one.children() for one in below) >= 2:
            return below
        time.sleep(0.1)
    raise AssertionError("the ranks did not start")
