"""Target `trtllm-serve`: TensorRT-LLM's own OpenAI-compatible server, as a command line and its YAML file.

Option names: TensorRT-LLM's documentation of 0.18.2 and its command reference of mid-2026. In releases about
1.0 the YAML file overrides the command line, so both are written from the same values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.backend.deployment import Deployment, EngineLimits
from pipeline.export import llm_api, start_script
from pipeline.export.export_readme import notes
from pipeline.export.export_refusals import own_runtime, paged, reusable, several_hosts
from pipeline.export.export_settings import Host, MemoryFraction, Port, Settings

OLDEST, YAML_SINCE, REMOVED = (0, 18), (1, 0), (1, 3)
"""Releases: first whose options we know, first that certainly reads a YAML file, first without engines."""

SERVED_ENGINES = "tensorrt"
"""The server's own word, after --backend, for engines of trtllm-build."""

TELEMETRY_SINCE = (1, 3)
"""First release with telemetry and the option against it."""


class ServeSettings(Settings):
    """What is left open follows from the engine, or from the options that it was measured with."""

    host: Host = "localhost"
    """Address to listen on; 0.0.0.0 for all."""
    port: Port = 8000
    kv_cache_fraction: MemoryFraction = 0.9
    """Share of the GPU memory left beside a TensorRT engine that the KV cache takes."""
    kv_cache_reuse: bool | None = None
    """Keep the KV cache of common prefixes; default: where the engine allows it."""
    chunked_context: bool | None = None
    """Process long prompts in pieces; default: where the engine allows it."""
    scheduler_policy: Literal["max_utilization", "guaranteed_no_evict"] = "guaranteed_no_evict"
    """Start as many requests as possible and pause some, or never pause one."""


OF_ENGINES = {"kv_cache_fraction", "kv_cache_reuse", "chunked_context", "scheduler_policy"}
"""Settings of TensorRT engines; for the PyTorch backend llm_options.yaml says it."""


class TrtllmServe:
    """The start script, its YAML file and a README."""

    settings = ServeSettings

    def reasons(self, deployment: Deployment, settings: ServeSettings) -> list[str]:
        """Every reason why trtllm-serve cannot serve it with these settings."""
        if deployment.llm_options is not None:
            # fields that were given, not fields with a value: all of these have defaults
            chosen = sorted(settings.model_fields_set & OF_ENGINES)
            return [
                *llm_api.reasons(deployment),
                *(f"{name}: llm_options.yaml sets it, as measured; change the recipe" for name in chosen),
            ]
        if deployment.limits is None:
            return [own_runtime(deployment)]
        return _check_engine(deployment, deployment.limits, settings)

    def files(self, deployment: Deployment, settings: ServeSettings) -> dict[str, str]:
        """serve.sh, options.yaml where the release reads one, and README.md."""
        document = _build_options(deployment, settings)
        start = _write_script(deployment, settings, document)
        model = Path(arguments(deployment, settings, document)[0]).name  # the server's name for it
        question = json.dumps({"model": model, "prompt": "def main(", "max_tokens": 32})
        header = "Content-Type: application/json"
        ask = f"    curl -s localhost:{settings.port}/v1/completions -H '{header}' -d '{question}'"
        where = f"Where TensorRT-LLM {deployment.version} is installed:\n\n    {settings.root}/serve.sh"
        texts = {
            "serve.sh": start,
            "README.md": notes(deployment, "trtllm-serve", (("Start", where), ("Ask", ask))),
        }
        return {**texts, "options.yaml": yaml.safe_dump(document, sort_keys=False)} if document else texts

    def trees(self, deployment: Deployment, settings: ServeSettings) -> Mapping[str, Path]:
        """The engine with its tokenizer, or the checkpoint with the autotuner's cache."""
        if deployment.llm_options is not None:
            return llm_api.trees(deployment)
        return {"engine": deployment.engine}

    def next_steps(self, deployment: Deployment, settings: ServeSettings) -> list[str]:
        """How the server is started, and asked."""
        return [
            f"where TensorRT-LLM {deployment.version} is installed: {settings.root}/serve.sh",
            f"curl -s localhost:{settings.port}/v1/models",
        ]


def _check_engine(deployment: Deployment, limits: EngineLimits, settings: ServeSettings) -> list[str]:
    problems = []
    if not OLDEST <= deployment.release < REMOVED:
        problems.append(
            f"the engine was built by TensorRT-LLM {deployment.version or 'of no known version'}; "
            "trtllm-serve's "
            "options for engines are known from 0.18 to 1.2"
        )
    problems += several_hosts(deployment)
    # the server proposes no tokens for such an engine; Triton's backend does
    if limits.speculation is not None:
        problems.append(f"the engine is built for {limits.speculation}; serve it with Triton: --to triton")
    # that one has an option of the command line in every release
    chosen = {name for name in OF_ENGINES - {"kv_cache_fraction"} if name in settings.model_fields_set}
    if chosen and deployment.release < YAML_SINCE:
        problems.append(
            f"{', '.join(sorted(chosen))}: TensorRT-LLM {deployment.version} takes it from no YAML file; "
            "leave it out"
        )
    if limits.windows is not None and deployment.release < YAML_SINCE:
        problems.append(
            f"layers of the engine have windows, which TensorRT-LLM {deployment.version} takes from no YAML "
            "file; serve it with Triton: --to triton"
        )
    context = {"kv_cache_reuse": settings.kv_cache_reuse, "chunked_context": settings.chunked_context}
    return [*problems, *paged(limits, context)]


def _build_options(deployment: Deployment, settings: ServeSettings) -> dict[str, Any]:
    """The YAML file; empty where the release reads none."""
    limits = deployment.limits
    if limits is None:
        return llm_api.options(deployment, settings)
    if deployment.release < YAML_SINCE:
        return {}
    return {
        "kv_cache_config": {
            "free_gpu_memory_fraction": settings.kv_cache_fraction,
            "enable_block_reuse": _use_default(settings.kv_cache_reuse, default=reusable(limits)),
            # engines do not store windows: without this every layer would attend to everything
            **({"max_attention_window": list(limits.windows)} if limits.windows is not None else {}),
        },
        "scheduler_config": {"capacity_scheduler_policy": settings.scheduler_policy.upper()},
        "enable_chunked_prefill": _use_default(settings.chunked_context, default=limits.paged_context),
    }


def _use_default(value: bool | None, *, default: bool) -> bool:  # noqa: FBT001 one value, or none
    return default if value is None else value


def arguments(deployment: Deployment, settings: ServeSettings, document: Mapping[str, Any]) -> list[str]:
    """The command line after `trtllm-serve`; limits are the engine's, or the measured options'."""
    limits = deployment.limits
    if limits is not None:
        place = settings.place("engine", deployment.engine)
        model = [place, "--tokenizer", f"{place}/tokenizer"]
        backend = ["--backend", SERVED_ENGINES] if deployment.release >= YAML_SINCE else []
        sizes = {
            "--max_num_tokens": limits.max_num_tokens,
            "--max_beam_width": limits.max_beam_width,
            "--kv_cache_free_gpu_memory_fraction": settings.kv_cache_fraction,
        }
    else:
        model, backend = [llm_api.model_path(deployment, settings)], ["--backend", "pytorch"]
        sizes = {
            f"--{name}": document[name] for name in ("max_num_tokens", "max_beam_width") if name in document
        }
        # an engine has its ep built in, so only a checkpoint needs the option
        sizes |= {"--ep_size": deployment.ep} if deployment.ep > 1 else {}
    numbers = {
        "--tp_size": deployment.tp,
        "--pp_size": deployment.pp,
        "--max_batch_size": deployment.max_batch_size,
        "--max_seq_len": deployment.max_seq_len,
        **sizes,
    }
    return [
        *model,
        *backend,
        "--host", settings.host,
        "--port", str(settings.port),
        *(word for name, value in numbers.items() for word in (name, str(value))),
        *(["--extra_llm_api_options", f"{settings.root}/options.yaml"] if document else []),
        *(["--no-telemetry"] if deployment.release >= TELEMETRY_SINCE else []),
    ]  # fmt: skip


def _write_script(deployment: Deployment, settings: ServeSettings, document: Mapping[str, Any]) -> str:
    argv = arguments(deployment, settings, document)
    return start_script.script(
        f"Serves {deployment.label} with trtllm-serve.",
        start_script.needs_version(deployment),
        start_script.needs_gpus(deployment),
        start_script.needs_files([argv[0], *([f"{settings.root}/options.yaml"] if document else [])]),
        llm_api.environment(deployment, settings),
        f"serve {start_script.command(['trtllm-serve', *argv])}\n",
    )


EXPORTER = TrtllmServe()
