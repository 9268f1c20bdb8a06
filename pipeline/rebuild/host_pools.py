"""Pools of hosts that engines are served on: declared in a YAML file, or this host alone."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, PositiveFloat

from pipeline.process.gpus import TARGETS
from pipeline.process.host import Host
from pipeline.rebuild.compatibility import CPU_ISAS
from pipeline.toolchains.toolchain import Toolchain
from recipes.errors import RecipeError
from recipes.frozen import Frozen, Several, Version1
from recipes.located import compose, construct, place, validate


def _known_gpu(name: str) -> str:
    if name not in TARGETS:
        raise ValueError(f"{name!r} is no GPU type; have {', '.join(TARGETS)}")
    return name


def _known_cpu(name: str) -> str:
    if name not in CPU_ISAS:
        raise ValueError(f"{name!r} is no vector set; have {', '.join(CPU_ISAS)}")
    return name


class Pool(Frozen):
    """Hosts that are alike; what is not given is not compared."""

    name: str
    gpu: Annotated[str, AfterValidator(_known_gpu)] | None = None
    """GPU type as recipes name it, e.g. `h200`; none: hosts without GPUs."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    tensorrt_llm: Several[str] = ()
    """Versions of TensorRT-LLM that serve there."""
    tensorrt: Several[str] = ()
    torch: str | None = None
    """Version of PyTorch in the environment that serves `aoti` engines."""
    cpu: Annotated[str, AfterValidator(_known_cpu)] | None = None
    """Widest vector set of its CPUs."""
    aliases: Several[str] = ()
    """Aliases served from here; none: all of those that suit its hardware."""
    usd_per_gpu_hour: PositiveFloat | None = None
    """What an hour of one GPU costs, to put a price on a rebuild."""

    def versions(self, program: str) -> tuple[str, ...]:
        """Versions of a program that loads engines there; none: not compared."""
        installed: str | tuple[str, ...] | None = getattr(self, program)
        return (installed,) if isinstance(installed, str) else tuple(installed or ())


class Pools(Frozen):
    """A file of pools."""

    version: Version1
    pools: Several[Pool]


def load_pools(file: Path) -> tuple[Pool, ...]:
    """Pools of a file, all of its mistakes told at once with line and column, as a RecipeError."""
    root = compose(file, "a file of pools", "write `version: 1` and `pools: [{name: ..., gpu: h200}]`")
    pools = validate(Pools, file, root, construct(file, root)).pools
    names = [pool.name for pool in pools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(file, [f"{place(root, ('pools',))}pools: two are named {twice!r}; rename one"])
    return pools


def pool_of_host(host: Host, toolchains: tuple[Toolchain, ...]) -> Pool:
    """This host as a pool of its own."""
    working = [toolchain for toolchain in toolchains if not toolchain.problem]
    return Pool(
        name="this host",
        gpu=_type_of(host.gpus[0].name) if host.gpus else None,
        driver=host.gpus[0].driver if host.gpus else None,
        tensorrt_llm=_versions(working, "tensorrt_llm"),
        tensorrt=_versions(working, "tensorrt"),
        torch=host.tools.get("torch"),
        # another vector set has no place in their order; None is not compared
        cpu=host.cpu if host.cpu in CPU_ISAS else None,
    )


def _versions(toolchains: list[Toolchain], name: str) -> tuple[str, ...]:
    return tuple(sorted({toolchain.versions[name] for toolchain in toolchains if name in toolchain.versions}))


def _type_of(gpu_name: str) -> str | None:
    """GPU type whose name is a word of what the driver calls the GPU, e.g. `NVIDIA H200` -> `h200`."""
    # whole words: one type's name may be part of another's, `h20` of `h200`
    words = gpu_name.lower().split()
    return next((name for name in TARGETS if name in words), None)
