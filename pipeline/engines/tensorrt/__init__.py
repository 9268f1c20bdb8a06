"""Backend `tensorrt`: engines that a TensorRT-LLM installation outside our environment builds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.backend.build_request import BuildRequest
from pipeline.backend.deployment import ServedFiles, release_of
from pipeline.backend.draft_net import DraftNet, rank_file_reasons
from pipeline.backend.lint_rule import Rule
from pipeline.backend.protocol import Backend
from pipeline.checkpoint.layout_checks import reasons as impossible
from pipeline.checkpoint.loadable import unloadable
from pipeline.engines.tensorrt import kernel_advice, profiles, prompt_advice, support
from pipeline.engines.tensorrt.capabilities import NEWEST, Capabilities, snapshot, table
from pipeline.engines.tensorrt.rules import apply_rules, draft_request, resolve_settings
from pipeline.engines.tensorrt.served_engine import read_served
from pipeline.engines.tensorrt.tensorrt_files import TensorrtFiles
from pipeline.engines.tensorrt.tensorrt_memory import TensorrtMemory
from pipeline.engines.tensorrt.tensorrt_options import Options, options_model
from pipeline.engines.tensorrt.tensorrt_refusals import reasons
from pipeline.errors import BackendUnavailable
from pipeline.trtllm import cache_advice, gpu_advice, serving_advice
from pipeline.trtllm.target_gpus import identity, lacking_gpus

PURPOSE = "to choose kernels on and to score the engine"
"""What the building host needs GPUs for."""

ADVICE: tuple[Rule, ...] = (
    gpu_advice.fp8_weights,
    cache_advice.fp8_cache,
    kernel_advice.multiple_profiles,
    kernel_advice.gemm_plugin_on,
    kernel_advice.gemm_plugin_off,
    prompt_advice.paged_context,
    prompt_advice.chunked_context,
    prompt_advice.host_offload,
    kernel_advice.reduce_fusion,
    kernel_advice.user_buffer,
    kernel_advice.gemm_swiglu,
    kernel_advice.low_latency_gemm,
    kernel_advice.low_latency_alone,
    kernel_advice.fast_build,
    gpu_advice.ranks_without_nvlink,
    serving_advice.batch_for_throughput,
    serving_advice.batch_for_latency,
    serving_advice.tokens_per_pass,
    prompt_advice.speculation,
    prompt_advice.queue_delay,
)
"""Rules of `enginery lint`, what gains most first."""

LAST_RELEASE = (1, 2)
"""Last release of TensorRT-LLM that builds engines ahead; later ones load checkpoints."""


class Tensorrt:
    """What is asked of this backend."""

    uses_toolchain = True
    on_gpu = True
    quantizes_at_build = True
    holds_code = False
    server = "trtllm-serve"
    advice = ADVICE
    foreign = TensorrtFiles()
    checkpoint: Final = "sharded_checkpoint"
    build = "pipeline.engines.tensorrt.build_tensorrt:build"
    runner = "pipeline.engines.tensorrt.tensorrt_runner"

    @property
    def memory(self) -> TensorrtMemory:
        """Memory that building and serving take."""
        return TensorrtMemory(self.settings)  # sizes follow from the options' effective values

    def options(self, request: BuildRequest) -> type[Options]:
        """Model of `engine.options` for the toolchain's version."""
        return options_model(understood(request))

    def missing(self, request: BuildRequest) -> str | None:
        """Says which toolchain or GPUs the host lacks; engines are built and scored on what they are for."""
        toolchain = request.toolchain
        if toolchain is None:
            why = request.choice.problem or "none was looked for"
            return f"backend tensorrt needs a TensorRT-LLM toolchain: {why}"
        try:
            # Without a table no command line can be written, whatever is installed.
            table(toolchain.version)
        except BackendUnavailable as exc:
            return f"toolchain {toolchain.name}: {exc}"
        return lacking_gpus(request, PURPOSE)

    def reasons(self, request: BuildRequest) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        engine = request.engine
        # Judged after all rules: what the builder would change is not to be refused as well.
        sheet = apply_rules(request, _parsed(request))
        return [
            *_unsupported(request, sheet.table),
            *_unsupported_draft(request, sheet.table),
            *profiles.problems(request.traffic, engine.max_batch_size, engine.max_seq_len),
            *reasons(sheet),
        ]

    def notes(self, request: BuildRequest) -> list[str]:
        """The option table that is used, and the settings that trtllm-build would silently override."""
        options = understood(request)
        about = [options.note] if request.toolchain is not None and options.note else []
        if request.toolchain is None:
            about = [f"engine.toolchain: there is none; options are those of TensorRT-LLM {options.snapshot}"]
        return [*about, *resolve_settings(request, _parsed(request)).notes]

    def settings(self, request: BuildRequest) -> dict[str, Any]:
        """Every option with its effective value."""
        return resolve_settings(request, _parsed(request)).as_param()

    def identity(self, request: BuildRequest) -> dict[str, Any]:
        """What tactics and compatibility depend on: the toolchain's versions, the GPU and its driver."""
        return identity(request)

    def eagle_reasons(self, net: DraftNet, request: BuildRequest) -> Iterable[str]:
        """Why a net cannot be built into the engine, which takes EAGLE-1."""
        return rank_file_reasons(net, request)

    def read_served(self, directory: Path, about: Mapping[str, Any]) -> ServedFiles:
        """The limits in trtllm-build's config.json, and the draft model's engine."""
        return read_served(directory, about)

    def suggested_for(self, programs: Mapping[str, str], *, on_gpu: bool) -> bool:
        """On GPUs, for releases of TensorRT-LLM that load engines, or for any."""
        version = programs.get("tensorrt_llm", "")
        return on_gpu and (not version or release_of(version) <= LAST_RELEASE)


def understood(request: BuildRequest) -> Capabilities:
    """The option table of the toolchain's version; the newest where there is no toolchain that has one.

    So a recipe is checked on hosts that cannot build it; `missing` says what they lack.
    """
    if request.toolchain is None:
        return snapshot(NEWEST)
    try:
        return table(request.toolchain.version)
    except BackendUnavailable:
        return snapshot(NEWEST)


def _unsupported(request: BuildRequest, options: Capabilities) -> list[str]:
    """What the version does not build or load; the planner reports impossible layouts itself."""
    problems, engine = list(support.problems(request, options)), request.engine
    layout = (request.shape, request.precision, engine.tp, engine.pp)
    # A layout that cannot be cut has no rank files to load.
    if request.shape.architecture in support.FAMILIES and not impossible(*layout, engine.ep):
        problems += unloadable(*layout, options.version, engine.ep)
    return problems


def _unsupported_draft(request: BuildRequest, options: Capabilities) -> list[str]:
    """The same for the draft model, without what holds for the target too."""
    draft = draft_request(request)
    if draft is None:
        return []
    of_target = _unsupported(request, options)
    return [
        f"speculative.draft: {reason}" for reason in _unsupported(draft, options) if reason not in of_target
    ]


def _parsed(request: BuildRequest) -> Options:
    return options_model(understood(request)).model_validate(request.engine.options)


BACKEND: Backend = Tensorrt()
