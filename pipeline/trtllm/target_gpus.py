"""The GPUs of this host that an engine is for; pure."""

import re
from typing import Any

from pipeline.backend.build_request import BuildRequest
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu

FORMS = {"pcie", "nvl"}
"""Words in names of GPUs and of targets for other forms than SXM, which have other clocks."""

MEMORY_TOLERANCE = 0.03
"""By how much drivers differ in a type's memory."""


def gpus(request: BuildRequest) -> list[Gpu]:
    """The host's GPUs of the target's type; all of the first one's kind for `host`."""
    target, have = request.engine.target, request.host.gpus
    if target == "host":
        # A host may have GPUs of several kinds; all ranks run on one kind, because kernels are chosen on it.
        return [gpu for gpu in have if (gpu.name, gpu.sm) == (have[0].name, have[0].sm)]
    return [gpu for gpu in have if _matches(target, gpu)]


def _matches(target: str, gpu: Gpu) -> bool:
    """Whether a GPU is of a type: its name has the type's words, and capability and memory agree."""
    kind = TARGETS.get(target)
    if kind is None or gpu.sm != kind.sm or abs(gpu.memory_bytes / kind.memory_bytes - 1) > MEMORY_TOLERANCE:
        return False
    base, *forms = target.split("-")
    words = set(re.split(r"[\s-]+", gpu.name.lower()))
    # Both ways: a target without a form is not a GPU that has one.
    return base in words and words & FORMS == set(forms) & FORMS


def sm(request: BuildRequest) -> int | None:
    """Compute capability times ten of the GPU that the engine is for; None where it is not known."""
    target = request.engine.target
    if target != "host":
        return TARGETS[target].sm if target in TARGETS else None
    return request.host.gpus[0].sm if request.host.gpus else None


def lacking_gpus(request: BuildRequest, purpose: str) -> str | None:
    """Says that the host has too few GPUs of the target's type, and for what they are needed."""
    engine = request.engine
    if len(gpus(request)) >= engine.world_size:
        return None
    have = ", ".join(f"{gpu.name} (sm_{gpu.sm})" for gpu in request.host.gpus) or "none"
    kind = "NVIDIA" if engine.target == "host" else engine.target
    return (
        f"backend {engine.backend} needs {engine.world_size} {kind} GPU(s) here, {purpose}; this host has "
        f"{have}; build on another host, or change engine.target, tp or pp"
    )


def identity(request: BuildRequest) -> dict[str, Any]:
    """What an engine's key hashes of the host: the toolchain's versions, the GPU and its driver."""
    versions = dict(request.toolchain.versions) if request.toolchain is not None else {}
    gpu = next(iter(gpus(request)), None)
    if gpu is None:
        # The plan of a host without GPUs shows what would be built; `missing` refuses the build itself.
        return {"versions": versions, "gpu": None, "sm": sm(request), "driver": None}
    return {"versions": versions, "gpu": gpu.name, "sm": gpu.sm, "driver": gpu.driver}
