"""Backend `trtllm_torch`: a quantized checkpoint, LLM API options and the autotuner's findings for it."""

from typing import Any, Final

from pipeline.backend.build_request import Wanted
from pipeline.engines.tensorrt import gpus
from pipeline.engines.trtllm_torch.llm_options import Table, newest, table_of
from pipeline.engines.trtllm_torch.torch_options import Options, model
from pipeline.engines.trtllm_torch.torch_refusals import reasons, sm_of
from pipeline.engines.trtllm_torch.torch_settings import (
    longest_prompt,
    max_num_tokens,
    needs_chunks,
    settings,
)


class TrtllmTorch:
    """What the planner asks of this backend."""

    uses_toolchain = True
    checkpoint: Final = "quantized_checkpoint"
    build = "pipeline.engines.trtllm_torch.build_trtllm_torch:build"
    runner = "pipeline.engines.trtllm_torch.torch_runner"

    def options(self, wanted: Wanted) -> type[Options]:
        """Model of `engine.options`, of the toolchain's version; without one, of the newest that is known."""
        return model(_table(wanted).version)

    def missing(self, wanted: Wanted) -> str | None:
        """Says what the host lacks: a toolchain, or the GPUs on which the autotuner warms up."""
        engine, have = wanted.engine, gpus(wanted)
        if wanted.toolchain is None:
            why = wanted.choice.problem or "none was looked for"
            return f"backend trtllm_torch needs a TensorRT-LLM toolchain of 1.0 or newer: {why}"
        if len(have) >= engine.world_size:
            return None
        found = ", ".join(f"{gpu.name} (sm_{gpu.sm})" for gpu in wanted.host.gpus) or "none"
        kind = "NVIDIA" if engine.target == "host" else engine.target
        return (
            f"backend trtllm_torch needs {engine.world_size} {kind} GPU(s) here, to warm up on; this host "
            f"has {found}; build on another host, or change engine.target, tp or pp"
        )

    def reasons(self, wanted: Wanted) -> list[str]:
        """Lists why this backend cannot build the engine, each with the recipe field to change."""
        return reasons(wanted)

    def notes(self, wanted: Wanted) -> list[str]:
        """Says which settings follow from others."""
        if not needs_chunks(wanted):
            return []
        return [
            f"enable_chunked_prefill: on, because prompts of up to {longest_prompt(wanted)} tokens do not "
            f"fit max_num_tokens {max_num_tokens(wanted)}"
        ]

    def settings(self, wanted: Wanted) -> dict[str, Any]:
        """Every option with its effective value."""
        return settings(wanted, _table(wanted))

    def identity(self, wanted: Wanted) -> dict[str, Any]:
        """What decides the tactics that the autotuner picks: the toolchain, the GPU and its driver."""
        versions = wanted.toolchain.versions if wanted.toolchain is not None else {}
        gpu = next(iter(gpus(wanted)), None)
        return {
            "versions": dict(versions),
            "gpu": gpu.name if gpu else None,
            "sm": gpu.sm if gpu else sm_of(wanted),
            "driver": gpu.driver if gpu else None,
        }


def _table(wanted: Wanted) -> Table:
    """The table of the toolchain's version; the newest where it has none, which `reasons` then refuses."""
    found = table_of(wanted.toolchain.version) if wanted.toolchain is not None else None
    return found or newest()


BACKEND = TrtllmTorch()
