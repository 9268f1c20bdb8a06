"""Whether an engine of TensorRT-LLM can be loaded on this host; pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.process.host import Host
from pipeline.toolchains.toolchain import BOUND, Toolchain


def mismatches(about: Mapping[str, Any], host: Host, toolchain: Toolchain) -> list[str]:
    """Why the engine that `engine.json` describes must not be loaded here, one reason each."""
    return [*_gpus(about, host), *_driver(about, host), *_versions(about, toolchain)]


def _gpus(about: Mapping[str, Any], host: Host) -> list[str]:
    count, built = about["world_size"], _built(about)
    if len(host.gpus) < count:
        return [f"it has {count} ranks, this host has {len(host.gpus)} GPUs"]
    problems = []
    for name, label in (("sm", "compute capability"), ("gpu", "GPU")):
        values = {getattr(gpu, "name" if name == "gpu" else name) for gpu in host.gpus[:count]}
        if built.get(name) is not None and values != {built[name]}:
            text = ", ".join(str(value) for value in sorted(values))
            problems.append(f"{label}: built on {built[name]}, this host has {text}")
    return problems


def _driver(about: Mapping[str, Any], host: Host) -> list[str]:
    """A driver of an older branch may lack what the CUDA of the build calls; a newer one has it."""
    built = _built(about).get("driver")
    if built is None or not host.gpus:
        return []
    installed = host.gpus[0].driver
    if _branch(installed) >= _branch(built):
        return []
    return [f"driver: built with {built}, this host has the older {installed}"]


def _versions(about: Mapping[str, Any], toolchain: Toolchain) -> list[str]:
    built = _built(about)
    return [
        f"{name}: built with {built[name]}, toolchain {toolchain.name} has {toolchain.versions.get(name)}"
        for name in BOUND
        if built.get(name) and toolchain.versions.get(name) != built[name]
    ]


def _built(about: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and GPU of the build."""
    return {**about["toolchain"], **{name: about[name] for name in ("gpu", "sm", "driver")}}


def _branch(driver: str) -> int:
    """First number of a driver's version."""
    first = driver.partition(".")[0]
    return int(first) if first.isdigit() else 0
