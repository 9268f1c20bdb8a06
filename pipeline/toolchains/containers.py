"""Command lines that run a program in a container image with GPUs; pure.

Written from the documentation of docker, podman, apptainer and enroot; never executed here with a GPU.
"""

from collections.abc import Sequence
from pathlib import Path

RUNTIMES = ("docker", "podman", "apptainer", "enroot")

PROGRAMS = {"python": "python3"}
"""Names inside an image, where they differ."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The host's choice of GPUs, handed on where a runtime would drop it; unset there, it is unset here."""

SHARED_MEMORY = ("--ipc=host", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864")
"""NCCL and MPI between ranks need more shared and locked memory than a container has by default."""


def prefix(runtime: str, image: str, user: str, mounts: Sequence[Path]) -> list[str]:
    """Everything before the program: the runtime, GPUs, shared memory, user, mounts and image."""
    paths = outermost(mounts)
    if runtime == "docker":
        return [
            *_run_arguments(runtime),
            "--gpus",
            "all",
            # without it docker's output belongs to the image's user, often root, and not to us
            *(["--user", user] if user else []),
            *_bind_arguments(paths),
            image,
        ]
    if runtime == "podman":
        # keep-id maps the user to the same id inside, as --user does for docker
        gpus = ("--device", "nvidia.com/gpu=all", "--security-opt", "label=disable", "--userns=keep-id")
        return [*_run_arguments(runtime), *gpus, *_bind_arguments(paths), image]
    if runtime == "apptainer":
        binds = [word for path in paths for word in ("--bind", f"{path}:{path}")]
        # packages in the user's home would come before the image's own
        return ["apptainer", "exec", "--nv", "--no-home", "--env", "PYTHONNOUSERSITE=1", *binds, image]
    if runtime == "enroot":
        devices = ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", VISIBLE)
        return [
            *("enroot", "start"),
            *(word for name in devices for word in ("--env", name)),
            *(word for path in paths for word in ("--mount", f"{path}:{path}")),
            image,
        ]
    raise ValueError(f"unknown container runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}")


def outermost(paths: Sequence[Path]) -> list[Path]:
    """The paths that lie in no other one, in order, each once."""
    # a directory inside another is mounted with it; twice would be two mounts of one place
    unique = list(dict.fromkeys(paths))
    return [
        path for path in unique if not any(path != other and path.is_relative_to(other) for other in unique)
    ]


def _run_arguments(runtime: str) -> list[str]:
    """`run` with what docker and podman share; a user without a home directory gets one that is writable."""
    env = ("--env", "HOME=/tmp", "--env", VISIBLE, "--workdir", "/tmp")
    return [runtime, "run", "--rm", "--init", "--pull=never", *SHARED_MEMORY, *env]


def _bind_arguments(paths: Sequence[Path]) -> list[str]:
    """Bind mounts that fail where the path is missing, as `--volume` does not."""
    # `--volume` creates a missing source as an empty directory owned by root.
    return [word for path in paths for word in ("--mount", f"type=bind,source={path},target={path}")]
