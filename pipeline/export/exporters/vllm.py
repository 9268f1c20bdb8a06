"""Target `vllm`: `vllm serve` for the quantized checkpoint that the version was built from.

vLLM loads checkpoints, not engines. Which ones of ModelOpt's it loads is the list QUANT_ALGOS of its
quantization/modelopt.py, read in the documentation of 0.9.0, 0.10.0, 0.13.0, 0.15.0 and 0.16.0.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import PositiveInt

from pipeline.backend.deployment import Checkpoint, Deployment
from pipeline.export import start_script
from pipeline.export.export_readme import notes
from pipeline.export.export_settings import Host, MemoryFraction, Port, Settings

LOADS = {"FP8": "0.13.0", "FP8_PER_CHANNEL_PER_TOKEN": "0.15.0"}
"""quant_algo of `hf_quant_config.json` -> first release of vLLM seen to load it. FP8 alone is older, but
our lists of excluded modules are shell patterns, which vLLM reads since 0.13.0. NVFP4 has a method of its own
there (`modelopt_fp4`), and later releases have one for mixed precision; neither is exported yet."""

UNQUANTIZED = "0.9.0"

KV_CACHES = {None: "auto", "FP8": "fp8"}
"""kv_cache_quant_algo -> `--kv-cache-dtype`."""

KV_SCALES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures whose loader takes ModelOpt's scales of keys and values. Those of Gemma 2, Gemma 3 and
Qwen2-MoE look for `q_proj`, `k_proj` and `v_proj` in a name before they look for such a scale
(`vllm/model_executor/models`, issue 25047); Mixtral's and Phi-3's were not seen to take them."""

PER_TENSOR = ("MixtralForCausalLM", "Phi3ForCausalLM", "Qwen2MoeForCausalLM")
"""Architectures with experts, or with fused projections in the checkpoint: FP8 with one scale per tensor is
loaded (ModelOptFp8MoEMethod; a fused linear's one scale), scales per channel were not seen to be."""


class VllmSettings(Settings):
    """Limits are the engine's unless they are given."""

    host: Host = "localhost"
    port: Port = 8000
    gpu_memory_utilization: MemoryFraction = 0.9
    """Share of each GPU's memory that vLLM takes."""
    max_num_seqs: PositiveInt | None = None
    """Requests at once; default: the engine's max_batch_size."""
    max_model_len: PositiveInt | None = None
    """Tokens per request; default: the engine's max_seq_len."""


class Vllm:
    """The start script and a README."""

    settings = VllmSettings

    def reasons(self, deployment: Deployment, settings: VllmSettings) -> list[str]:
        """Every reason why vLLM cannot serve its checkpoint."""
        checkpoint = deployment.checkpoint
        if checkpoint is None:
            return [
                f"vLLM loads no {deployment.backend} engine but the quantized checkpoint it was built "
                "from, and that is "
                "not in the store; build its recipe again"
            ]
        return [*_check_format(checkpoint), *_check_layout(deployment)]

    def files(self, deployment: Deployment, settings: VllmSettings) -> dict[str, str]:
        """serve.sh and README.md."""
        assert deployment.checkpoint is not None
        # `reasons` has refused every other algorithm by now
        least = LOADS.get(deployment.checkpoint.quant_algo or "", UNQUANTIZED)
        ask = f"    curl -s localhost:{settings.port}/v1/models"
        gate = (
            "The gate judged, and the figures above measured, the version's own engine. vLLM computes "
            "with the same "
            "quantized weights and scales by its own kernels: judge it on your data before it serves."
        )
        if deployment.limits is not None and deployment.limits.speculation is not None:
            # the measured speed rests on speculation; here there is none
            gate += f" It decodes one token per step: {deployment.limits.speculation} is not exported to it."
        start = f"With vLLM {least} or later:\n\n    {settings.root}/serve.sh"
        return {
            "serve.sh": _write_script(deployment, settings),
            "README.md": notes(
                deployment, "vLLM", (("Start", start), ("Ask", ask), ("What was judged", gate))
            ),
        }

    def trees(self, deployment: Deployment, settings: VllmSettings) -> Mapping[str, Path]:
        """The checkpoint."""
        assert deployment.checkpoint is not None
        return {"checkpoint": deployment.checkpoint.path}

    def next_steps(self, deployment: Deployment, settings: VllmSettings) -> list[str]:
        """How the server is started, and asked."""
        return [
            f"where vLLM is installed: {settings.root}/serve.sh",
            f"curl -s localhost:{settings.port}/v1/models",
        ]


def _check_format(checkpoint: Checkpoint) -> list[str]:
    problems = []
    if checkpoint.quant_algo is not None and checkpoint.quant_algo not in LOADS:
        problems.append(
            f"vLLM loads no ModelOpt checkpoint of {checkpoint.quant_algo}; it loads {', '.join(LOADS)} "
            "and unquantized "
            "ones"
        )
    if checkpoint.quant_algo == "FP8_PER_CHANNEL_PER_TOKEN" and checkpoint.architecture in PER_TENSOR:
        problems.append(
            f"vLLM was not seen to load FP8 scales per channel for {checkpoint.architecture}; build with "
            "format fp8"
        )
    if checkpoint.quant_algo is None and checkpoint.kv_cache_quant_algo is not None:
        problems.append(
            "vLLM reads scales of the KV cache from quantized checkpoints only, and these weights are not"
        )
    elif checkpoint.kv_cache_quant_algo is not None and checkpoint.architecture not in KV_SCALES:
        problems.append(
            f"vLLM was not seen to load scales of the KV cache for {checkpoint.architecture}; build with "
            "kv_cache auto"
        )
    elif checkpoint.kv_cache_quant_algo not in KV_CACHES:
        problems.append(
            f"vLLM takes no {checkpoint.kv_cache_quant_algo} scales for the KV cache; it takes FP8 or none"
        )
    return problems


def _check_layout(deployment: Deployment) -> list[str]:
    """vLLM spreads experts over all tensor-parallel ranks or over none."""
    if deployment.ep in (1, deployment.tp):
        return []
    return [f"ep {deployment.ep} with tp {deployment.tp}: vLLM knows ep 1 or ep {deployment.tp}"]


def arguments(deployment: Deployment, settings: VllmSettings) -> list[str]:
    """The command line after `vllm serve`."""
    checkpoint = deployment.checkpoint
    assert checkpoint is not None
    return [
        settings.place("checkpoint", checkpoint.path),
        *(["--quantization", "modelopt"] if checkpoint.quant_algo is not None else []),
        "--kv-cache-dtype", KV_CACHES[checkpoint.kv_cache_quant_algo],
        "--tensor-parallel-size", str(deployment.tp),
        "--pipeline-parallel-size", str(deployment.pp),
        *(["--enable-expert-parallel"] if deployment.ep > 1 else []),
        "--max-model-len", str(settings.max_model_len or deployment.max_seq_len),
        "--max-num-seqs", str(settings.max_num_seqs or deployment.max_batch_size),
        "--gpu-memory-utilization", str(settings.gpu_memory_utilization),
        # or clients would have to ask for a path
        "--served-model-name", deployment.name,
        "--host", settings.host,
        "--port", str(settings.port),
    ]  # fmt: skip


def _write_script(deployment: Deployment, settings: VllmSettings) -> str:
    argv = arguments(deployment, settings)
    return start_script.script(
        f"Serves the checkpoint of {deployment.label} with vLLM.",
        # no check of the version: vLLM need only be new enough, which the README says
        start_script.needs_files([f"{argv[0]}/config.json"]),
        "export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1",
        f"serve {start_script.command(['vllm', 'serve', *argv])}\n",
    )


EXPORTER = Vllm()
