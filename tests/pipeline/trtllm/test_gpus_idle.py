"""The GPUs of a build are those that are visible, of one type, and used by nobody else."""

from pathlib import Path

import pytest

from pipeline.errors import BackendUnavailable
from pipeline.step.step_parameters import EngineParams
from pipeline.trtllm.gpus_idle import Device, devices, idle, one_per_rank, take, visible
from recipes.precision import Precision
from tests.contract.toolchain import behave, toolchain


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A contract toolchain whose nvidia-smi is the first on PATH."""
    made = toolchain(tmp_path / "trtllm")
    monkeypatch.setenv("PATH", str(made / "bin"), prepend=":")
    return made


def taken(
    chosen: str | None = None, gpu: str | None = None, sm: int = 90, at_most: int = 8
) -> tuple[Device, ...]:
    return take(devices({} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}), gpu, sm, at_most)


def test_idle_gpus_are_all_that_a_build_asks_for(root: Path) -> None:
    found = taken()
    assert [one.index for one in found] == [0, 1]
    assert (found[0].sm, found[0].driver, found[0].memory_bytes) == (90, "550.54.15", 81559 << 20)
    assert len(taken(at_most=1)) == 1


@pytest.mark.parametrize(("chosen", "indices"), [("1", [1]), ("1,0", [1, 0]), ("GPU-00000001", [1])])
def test_only_chosen_gpus_count(root: Path, chosen: str, indices: list[int]) -> None:
    assert [one.index for one in devices({"CUDA_VISIBLE_DEVICES": chosen})] == indices


def test_a_choice_of_none_is_told(root: Path) -> None:
    with pytest.raises(BackendUnavailable, match="CUDA_VISIBLE_DEVICES is '7', which leaves no GPU"):
        devices({"CUDA_VISIBLE_DEVICES": "7"})


def test_a_gpu_that_is_used_is_left_alone(root: Path) -> None:
    behave(root, processes=("0, 4242, /usr/bin/python, 900",))
    assert [one.index for one in taken()] == [1]


def test_whoever_uses_the_only_gpus_is_named(root: Path) -> None:
    behave(root, processes=("0, 4242, /usr/bin/python, 900",))
    with pytest.raises(BackendUnavailable, match=r"GPU 0 .*: pid 4242 \(/usr/bin/python, 900 MiB\)"):
        taken("0")


def test_memory_in_use_by_processes_that_cannot_be_seen_counts_too(root: Path) -> None:
    behave(root, used_mib=30000)
    with pytest.raises(BackendUnavailable, match="30000 MiB by processes that are not visible here"):
        taken()


def test_gpus_of_another_type_than_the_plan_saw_are_refused(root: Path) -> None:
    with pytest.raises(
        BackendUnavailable, match=r"is for NVIDIA L4, the GPUs here are NVIDIA H100 .* \(sm_90\)"
    ):
        taken(gpu="NVIDIA L4")


def test_gpus_of_another_capability_are_refused(root: Path) -> None:
    with pytest.raises(BackendUnavailable, match="the engine is for sm_100, the GPUs here are"):
        taken(sm=100)


def test_what_the_driver_takes_for_itself_is_no_use(root: Path) -> None:
    behave(root, used_mib=600)
    assert len(taken()) == 2


def test_a_host_without_a_driver_says_that_engines_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BackendUnavailable, match="no GPU: nvidia-smi is not on PATH"):
        devices({})


def asked(target: str = "h100", gpu: str | None = None, tp: int = 1) -> EngineParams:
    return EngineParams(
        backend="tensorrt", format=Precision.parse("none"), target=target, tp=tp, pp=1, ep=1, kv_cache="auto",
        max_batch_size=1, max_seq_len=8, options={}, toolchain={"gpu": gpu},
    )  # fmt: skip


def test_a_steps_gpus_are_of_its_targets_type(root: Path) -> None:
    assert [one.index for one in idle(asked(), 8)] == [0, 1]
    assert len(idle(asked("host", "NVIDIA H100 80GB HBM3"), 1)) == 1
    with pytest.raises(BackendUnavailable, match="the engine is for sm_100, the GPUs here are"):
        idle(asked("b200"), 1)


def test_a_build_with_a_gpu_per_rank_refuses_to_share_one(root: Path) -> None:
    assert visible(one_per_rank(asked(tp=2))) == "GPU-00000000,GPU-00000001"
    behave(root, processes=("0, 4242, /usr/bin/python, 900",))
    assert visible(one_per_rank(asked())) == "GPU-00000001"
    with pytest.raises(BackendUnavailable, match="needs 2 idle GPUs, one per rank; only GPU 1 of its type"):
        one_per_rank(asked(tp=2))
