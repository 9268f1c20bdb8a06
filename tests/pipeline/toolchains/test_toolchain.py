"""Command lines of the programs of a toolchain, as they must be written for each way to reach it."""

from pathlib import Path

import pytest

from pipeline.step.step_parameters import EnginePlaces
from pipeline.toolchains.containers import outermost
from pipeline.toolchains.toolchain import Toolchain

MOUNTS = [Path("/store/objects"), Path("/store/staging/engine")]
RUN = (
    "run --rm --init --pull=never --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 "
    "--env HOME=/tmp --env CUDA_VISIBLE_DEVICES --workdir /tmp"
)
BIND = (
    "--mount type=bind,source=/store/objects,target=/store/objects "
    "--mount type=bind,source=/store/staging/engine,target=/store/staging/engine"
)
CONTAINERS = {
    "docker": f"docker {RUN} --gpus all --user 1000:1000 {BIND} image:1 trtllm-build --tp 2",
    "podman": f"podman {RUN} --device nvidia.com/gpu=all --security-opt label=disable --userns=keep-id "
    f"{BIND} image:1 trtllm-build --tp 2",
    "apptainer": "apptainer exec --nv --no-home --env PYTHONNOUSERSITE=1 --bind /store/objects:/store/objects "
    "--bind /store/staging/engine:/store/staging/engine image:1 trtllm-build --tp 2",
    "enroot": "enroot start --env NVIDIA_VISIBLE_DEVICES=all "
    "--env NVIDIA_DRIVER_CAPABILITIES=compute,utility --env CUDA_VISIBLE_DEVICES "
    "--mount /store/objects:/store/objects --mount /store/staging/engine:/store/staging/engine "
    "image:1 trtllm-build --tp 2",
}


def container(runtime: str) -> Toolchain:
    return Toolchain(name="c", kind="container", location="image:1", runtime=runtime, user="1000:1000")


@pytest.mark.parametrize(("runtime", "expected"), CONTAINERS.items())
def test_a_container_gets_gpus_and_the_mounts_at_the_same_paths(runtime: str, expected: str) -> None:
    assert " ".join(container(runtime).argv("trtllm-build", "--tp", "2", mounts=MOUNTS)) == expected


def test_an_environments_programs_are_called_by_their_path() -> None:
    toolchain = Toolchain(name="e", kind="environment", location="/opt/trtllm")
    assert toolchain.argv("trtllm-bench", "--help", mounts=MOUNTS) == [
        "/opt/trtllm/bin/trtllm-bench",
        "--help",
    ]


def test_programs_on_path_are_called_where_they_were_found() -> None:
    toolchain = Toolchain(
        name="p", kind="path", location="/usr/local/bin", programs={"python": "/usr/bin/python3"}
    )
    assert toolchain.argv("trtllm-build") == ["/usr/local/bin/trtllm-build"]
    assert toolchain.argv("python", "-c", "pass") == ["/usr/bin/python3", "-c", "pass"]


def test_the_python_of_an_image_is_python3() -> None:
    assert container("docker").argv("python", "-V")[-2:] == ["python3", "-V"]


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'lxc'; choose one of docker, podman, apptainer, enroot"):
        container("lxc").argv("python")


def test_a_mount_inside_another_is_not_mounted_twice() -> None:
    paths = [Path("/a/b"), Path("/a"), Path("/a"), Path("/ab")]
    assert outermost(paths) == [Path("/a"), Path("/ab")]


def test_a_toolchain_survives_json() -> None:
    toolchain = Toolchain(
        name="e",
        kind="environment",
        location="/opt/t",
        programs={"mpirun": "/m"},
        versions={"tensorrt_llm": "1.0"},
    )
    places = EnginePlaces(toolchain=toolchain)
    assert EnginePlaces.model_validate_json(places.model_dump_json()).toolchain == toolchain
