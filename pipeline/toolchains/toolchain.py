"""One TensorRT-LLM installation, as a value; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from artifacts.finding.needs import INSTALLATION
from pipeline.toolchains import containers

BOUND = INSTALLATION
"""Packages of an installation, by the names of their versions, that an engine is bound to: TensorRT refuses
plans of other patches (tensorrtllm_backend#194, #424), and TensorRT-LLM's plugins come with it."""

Kind = Literal["path", "environment", "container"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Programs of one TensorRT-LLM version, and how to reach them."""

    name: str
    """As recipes call it."""
    kind: Kind
    """Found on PATH, in a virtual environment, or in a container image."""
    location: str
    """Directory of the programs, root of the environment, or reference of the image."""
    runtime: str = ""
    """Program that runs the image: docker, podman, apptainer or enroot; empty for the other kinds."""
    user: str = ""
    """`uid:gid` that docker runs the image as, so that what it writes is ours; empty: the image's own."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Programs that are not in the toolchain's own directory, by name: an MPI launcher, a system's Python."""
    launcher: Literal["trtllm-build", "mpirun"] = "trtllm-build"
    """What starts the ranks of a build: the builder's own workers, or MPI."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Probed: `tensorrt_llm`, `tensorrt`, `cuda`, `torch`, `python`, and `image` with an image's digest."""
    problem: str = ""
    """Why it cannot be used and what to do about it; empty when it can."""

    @property
    def version(self) -> str:
        """Version of TensorRT-LLM."""
        return self.versions.get("tensorrt_llm", "")

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def program(self, name: str) -> str:
        """What another program of the toolchain has to call to start this one."""
        if name in self.programs:
            return self.programs[name]
        if self.kind == "container":
            # a bare name: the image's own PATH finds it
            return containers.PROGRAMS.get(name, name)
        directory = Path(self.location)
        return str((directory / "bin" if self.kind == "environment" else directory) / name)

    def argv(self, program: str, *arguments: str, mounts: Sequence[Path] = ()) -> list[str]:
        """The command that runs a program; in an image, with GPUs and with `mounts` at their own paths."""
        inside = [self.program(program), *arguments]
        if self.kind != "container":
            return inside
        return [*containers.prefix(self.runtime, self.location, self.user, mounts), *inside]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The toolchain that a recipe is built with, or why there is none."""

    toolchain: Toolchain | None = None
    problem: str = ""
