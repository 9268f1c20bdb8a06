"""The command that builds a part, for each way to reach a toolchain and each way to start ranks."""

from pathlib import Path

from pipeline.engines.tensorrt.build_tensorrt import argv_of, clean_env
from pipeline.engines.tensorrt.capabilities import snapshot
from pipeline.engines.tensorrt.engine_parts import Part
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.sheet import AT_BUILD
from pipeline.engines.tensorrt.tensorrt_options import default_of
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm.gpus_idle import Device

CHECKPOINT, OUT = Path("/store/checkpoint"), Path("/store/staging/engine")


def part() -> Part:
    table = snapshot("0.16.0")
    options = {
        option.name: default_of(option)
        for option in table.options.values()
        if option.name not in AT_BUILD and not option.deprecated
    }
    return Part(
        name="",
        checkpoint=CHECKPOINT,
        config={"mapping": {"world_size": 2}},
        asked={},
        settings=EngineSettings(table=table, values=options),
    )


def test_the_builder_starts_its_own_workers() -> None:
    toolchain = Toolchain(name="e", kind="environment", location="/opt/trt")
    argv = argv_of(part(), toolchain, OUT, 2)
    assert argv[0] == "/opt/trt/bin/trtllm-build"
    assert argv[argv.index("--workers") + 1] == "2"
    assert argv[argv.index("--checkpoint_dir") + 1] == str(CHECKPOINT)


def test_mpi_starts_the_builder_once_per_rank() -> None:
    toolchain = Toolchain(
        name="e",
        kind="environment",
        location="/opt/trt",
        launcher="mpirun",
        programs={"mpirun": "/usr/bin/mpirun"},
    )
    argv = argv_of(part(), toolchain, OUT, 2)
    assert argv[:5] == ["/usr/bin/mpirun", "-n", "2", "--allow-run-as-root", "/opt/trt/bin/trtllm-build"]


def test_an_image_sees_the_checkpoint_and_the_output_and_runs_mpi_inside() -> None:
    toolchain = Toolchain(name="c", kind="container", location="i:1", runtime="docker", launcher="mpirun")
    argv = argv_of(part(), toolchain, OUT, 2)
    inside = argv[argv.index("i:1") + 1 :]
    assert inside[:5] == ["mpirun", "-n", "2", "--allow-run-as-root", "trtllm-build"]
    for path in (CHECKPOINT, OUT):
        assert f"type=bind,source={path},target={path}" in argv


def test_the_timing_cache_is_one_file_of_this_engine_for_input_and_output() -> None:
    argv = argv_of(part(), Toolchain(name="e", kind="environment", location="/opt/trt"), OUT, 1)
    for option in ("--input_timing_cache", "--output_timing_cache"):
        assert argv[argv.index(option) + 1] == "/store/staging/engine/tuning/timing.cache"


def test_ranks_built_at_once_read_a_copy_that_nobody_writes() -> None:
    argv = argv_of(part(), Toolchain(name="e", kind="environment", location="/opt/trt"), OUT, 2)
    assert argv[argv.index("--input_timing_cache") + 1] == "/store/staging/engine/tuning/input.cache"
    assert argv[argv.index("--output_timing_cache") + 1] == "/store/staging/engine/tuning/timing.cache"


def test_a_foreign_python_does_not_see_our_packages() -> None:
    env = clean_env({"PYTHONPATH": "/ours", "PATH": "/bin"}, [])
    assert env == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": ""}


def test_the_builder_sees_the_gpus_that_were_found_idle_and_no_others() -> None:
    gpus = [
        Device(index=n, uuid=f"GPU-{n}", name="L4", sm=89, memory_bytes=1, used_bytes=0, driver="1")
        for n in (1, 3)
    ]
    assert clean_env({"CUDA_VISIBLE_DEVICES": "0,1,3"}, gpus)["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-3"
