"""Backend `tensorrt`: engines that a TensorRT-LLM installation outside our environment builds."""

import re
from typing import Any, Final

from pipeline.backend.build_request import Wanted
from pipeline.checkpoint.layout_checks import reasons as impossible
from pipeline.checkpoint.loadable import unloadable
from pipeline.engines.tensorrt import profiles, support
from pipeline.engines.tensorrt.capabilities import NEWEST, Capabilities, snapshot, table
from pipeline.engines.tensorrt.rules import draft_request, effective, worked_out
from pipeline.engines.tensorrt.tensorrt_options import Options, options_model
from pipeline.engines.tensorrt.tensorrt_refusals import reasons
from pipeline.errors import BackendUnavailable
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu

FORMS = {"pcie", "nvl"}
"""Words in names of GPUs and of targets for other forms than SXM, which have other clocks."""

MEMORY_TOLERANCE = 0.03
"""By how much drivers differ in a type's memory."""


class Tensorrt:
    """What the planner asks of this backend."""

    uses_toolchain = True
    checkpoint: Final = "sharded_checkpoint"
    build = "pipeline.engines.tensorrt.build_tensorrt:build"
    runner = "pipeline.engines.tensorrt.tensorrt_runner"

    def options(self, wanted: Wanted) -> type[Options]:
        """Model of `engine.options` for the toolchain's version."""
        return options_model(understood(wanted))

    def missing(self, wanted: Wanted) -> str | None:
        """Says which toolchain or GPUs the host lacks; engines are built and scored on what they are for."""
        toolchain = wanted.toolchain
        if toolchain is None:
            why = wanted.choice.problem or "none was looked for"
            return f"backend tensorrt needs a TensorRT-LLM toolchain: {why}"
        try:
            table(toolchain.version)
        except BackendUnavailable as exc:
            return f"toolchain {toolchain.name}: {exc}"
        return _lacking_gpus(wanted)

    def reasons(self, wanted: Wanted) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        engine = wanted.engine
        made = worked_out(wanted, _parsed(wanted))
        return [
            *_unsupported(wanted, made.table),
            *_unsupported_draft(wanted, made.table),
            *profiles.problems(wanted.traffic, engine.max_batch_size, engine.max_seq_len),
            *reasons(made),
        ]

    def notes(self, wanted: Wanted) -> list[str]:
        """Says which table is used and which settings trtllm-build would change without a word."""
        known = understood(wanted)
        about = [known.note] if wanted.toolchain is not None and known.note else []
        if wanted.toolchain is None:
            about = [f"engine.toolchain: there is none; options are those of TensorRT-LLM {known.snapshot}"]
        return [*about, *effective(wanted, _parsed(wanted)).notes]

    def settings(self, wanted: Wanted) -> dict[str, Any]:
        """Every option with its effective value."""
        return effective(wanted, _parsed(wanted)).settings

    def identity(self, wanted: Wanted) -> dict[str, Any]:
        """What tactics and compatibility depend on: the toolchain's versions, the GPU and its driver."""
        found = gpus(wanted)
        versions = dict(wanted.toolchain.versions) if wanted.toolchain else {}
        if not found:
            return {"versions": versions, "gpu": None, "sm": support.sm(wanted), "driver": None}
        return {"versions": versions, "gpu": found[0].name, "sm": found[0].sm, "driver": found[0].driver}


def understood(wanted: Wanted) -> Capabilities:
    """The option table of the toolchain's version; the newest where there is no toolchain that has one.

    So a recipe is checked on hosts that cannot build it; `missing` says what they lack.
    """
    if wanted.toolchain is None:
        return snapshot(NEWEST)
    try:
        return table(wanted.toolchain.version)
    except BackendUnavailable:
        return snapshot(NEWEST)


def _unsupported(wanted: Wanted, known: Capabilities) -> list[str]:
    """What the version does not build or load; of a layout that is impossible anyway the planner tells."""
    found, engine = list(support.problems(wanted, known)), wanted.engine
    layout = (wanted.shape, wanted.precision, engine.tp, engine.pp)
    if wanted.shape.architecture in support.FAMILIES and not impossible(*layout, engine.ep):
        found += unloadable(*layout, known.version, engine.ep)
    return found


def _unsupported_draft(wanted: Wanted, known: Capabilities) -> list[str]:
    """The same of the draft model, but for what is said of the target already."""
    draft = draft_request(wanted)
    if draft is None:
        return []
    told = _unsupported(wanted, known)
    return [f"speculative.draft: {reason}" for reason in _unsupported(draft, known) if reason not in told]


def gpus(wanted: Wanted) -> list[Gpu]:
    """The host's GPUs of the target's type; all of the first one's kind for `host`."""
    target, found = wanted.engine.target, wanted.host.gpus
    if target == "host":
        return [gpu for gpu in found if (gpu.name, gpu.sm) == (found[0].name, found[0].sm)]
    return [gpu for gpu in found if _is_of(target, gpu)]


def _is_of(target: str, gpu: Gpu) -> bool:
    """Whether a GPU is of a type: its name has the type's words, and capability and memory agree."""
    kind = TARGETS.get(target)
    if kind is None or gpu.sm != kind.sm or abs(gpu.memory_bytes / kind.memory_bytes - 1) > MEMORY_TOLERANCE:
        return False
    base, *forms = target.split("-")
    named = set(re.split(r"[\s-]+", gpu.name.lower()))
    return base in named and named & FORMS == set(forms) & FORMS


def _lacking_gpus(wanted: Wanted) -> str | None:
    engine, have = wanted.engine, gpus(wanted)
    if len(have) >= engine.world_size:
        return None
    found = ", ".join(f"{gpu.name} (sm_{gpu.sm})" for gpu in wanted.host.gpus) or "none"
    kind = "NVIDIA" if engine.target == "host" else engine.target
    return (
        f"backend tensorrt needs {engine.world_size} {kind} GPU(s) here, to choose kernels on and to "
        f"score the engine; this host has {found}; build on another host, or change engine.target, tp or pp"
    )


def _parsed(wanted: Wanted) -> Options:
    return options_model(understood(wanted)).model_validate(wanted.engine.options)


BACKEND = Tensorrt()
