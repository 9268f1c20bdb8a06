"""Backend `trtllm_torch`: a quantized checkpoint, LLM API options and the autotuner's findings for it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.backend.build_request import BuildRequest
from pipeline.backend.deployment import ServedFiles, release_of
from pipeline.backend.draft_net import DraftNet
from pipeline.backend.lint_rule import Rule
from pipeline.backend.protocol import Backend
from pipeline.drafting.eagle import third_reasons
from pipeline.engines.trtllm_torch import torch_advice
from pipeline.engines.trtllm_torch.llm_options import Table, newest, table_of
from pipeline.engines.trtllm_torch.served_options import read_served
from pipeline.engines.trtllm_torch.torch_memory import TorchMemory
from pipeline.engines.trtllm_torch.torch_options import Options, model
from pipeline.engines.trtllm_torch.torch_refusals import reasons
from pipeline.engines.trtllm_torch.torch_settings import (
    longest_prompt,
    max_num_tokens,
    needs_chunks,
    settings,
)
from pipeline.trtllm import cache_advice, gpu_advice, serving_advice
from pipeline.trtllm.target_gpus import identity, lacking_gpus

PURPOSE = "to warm up on"
"""What the building host needs GPUs for."""

ADVICE: tuple[Rule, ...] = (
    gpu_advice.fp8_weights,
    cache_advice.fp8_cache,
    torch_advice.chunked_context,
    torch_advice.block_reuse,
    torch_advice.host_offload,
    gpu_advice.ranks_without_nvlink,
    serving_advice.batch_for_throughput,
    serving_advice.batch_for_latency,
    serving_advice.tokens_per_pass,
    torch_advice.speculation,
)
"""Rules of `enginery lint`, what gains most first."""

FIRST_RELEASE = (1, 3)
"""First release of TensorRT-LLM that only loads checkpoints."""


class TrtllmTorch:
    """What is asked of this backend."""

    uses_toolchain = True
    on_gpu = True
    quantizes_at_build = False
    holds_code = False
    server = "trtllm-serve"
    advice = ADVICE
    foreign = None
    checkpoint: Final = "quantized_checkpoint"
    build = "pipeline.engines.trtllm_torch.build_trtllm_torch:build"
    runner = "pipeline.engines.trtllm_torch.torch_runner"

    @property
    def memory(self) -> TorchMemory:
        """Memory that serving takes."""
        return TorchMemory(self.settings)

    def options(self, request: BuildRequest) -> type[Options]:
        """Model of `engine.options`, of the toolchain's version; without one, of the newest that is known."""
        return model(_table(request).version)

    def missing(self, request: BuildRequest) -> str | None:
        """Says what the host lacks: a toolchain, or the GPUs on which the autotuner warms up."""
        if request.toolchain is None:
            why = request.choice.problem or "none was looked for"
            return f"backend trtllm_torch needs a TensorRT-LLM toolchain of 1.0 or newer: {why}"
        return lacking_gpus(request, PURPOSE)

    def reasons(self, request: BuildRequest) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        return reasons(request)

    def notes(self, request: BuildRequest) -> list[str]:
        """Says which settings follow from others."""
        if not needs_chunks(request):
            return []
        return [
            f"enable_chunked_prefill: on, because prompts of up to {longest_prompt(request)} tokens do not "
            f"fit max_num_tokens {max_num_tokens(request)}"
        ]

    def settings(self, request: BuildRequest) -> dict[str, Any]:
        """Every option with its effective value."""
        return settings(request, _table(request))

    def identity(self, request: BuildRequest) -> dict[str, Any]:
        """What decides the tactics that the autotuner picks: the toolchain, the GPU and its driver."""
        return identity(request)

    def eagle_reasons(self, net: DraftNet, request: BuildRequest) -> Iterable[str]:
        """Why the library cannot load a net beside the model; it loads EAGLE-3."""
        return third_reasons(net.config, net.tensors, request.shape, request.engine.pp)

    def read_served(self, directory: Path, about: Mapping[str, Any]) -> ServedFiles:
        """The options that it was measured with."""
        return read_served(directory)

    def suggested_for(self, programs: Mapping[str, str], *, on_gpu: bool) -> bool:
        """On GPUs, for releases of TensorRT-LLM that load no engines."""
        return on_gpu and release_of(programs.get("tensorrt_llm", "")) >= FIRST_RELEASE


def _table(request: BuildRequest) -> Table:
    """The table of the toolchain's version; the newest where it has none, which `reasons` then refuses."""
    table = table_of(request.toolchain.version) if request.toolchain is not None else None
    return table or newest()


BACKEND: Backend = TrtllmTorch()
