"""Triton's LLM-API variant: one Python model, whose model.yaml holds the options of the LLM."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from pipeline.backend.deployment import Deployment
from pipeline.export import llm_api, start_script
from pipeline.export.export_readme import container, notes
from pipeline.export.triton import triton_configs
from pipeline.export.triton.triton_settings import TritonSettings

TEMPLATES = "/app/all_models/llmapi/tensorrt_llm"
"""Where NVIDIA's container keeps the variant's model.py."""

ENGINE_ONLY = {
    "max_batch_size", "scheduler_policy", "queue_delay_us", "queue_size", "kv_cache_fraction",
    "max_kv_tokens", "kv_host_memory_bytes", "kv_cache_reuse", "chunked_context", "max_beam_width",
    "decoding_mode", "draft_choices", "lookahead", "gpu_weights_percent", "exclude_input",
    "add_special_tokens", "skip_special_tokens", "preprocessing_instances", "postprocessing_instances",
    "bls_instances",
}  # fmt: skip
"""Settings of the engine path; here llm_options.yaml says it, and the engine was measured with it."""


def reasons(deployment: Deployment, settings: TritonSettings) -> list[str]:
    """Every reason why this variant cannot serve it."""
    chosen = sorted(settings.model_fields_set & ENGINE_ONLY)
    problems = [
        f"{name}: the LLM API takes it from llm_options.yaml, which was measured; change the recipe"
        for name in chosen
    ]
    return [*llm_api.reasons(deployment), *problems]


def files(deployment: Deployment, settings: TritonSettings, question: str) -> dict[str, str]:
    """model.yaml, the model's configuration, the start script and a README with a request."""
    model = llm_api.model_path(deployment, settings)
    document = {
        "model": model,
        "backend": "pytorch",
        **llm_api.options(deployment, settings),
        # after the options, so that none of them can replace it
        "triton_config": {"max_batch_size": 0, "decoupled": settings.decoupled},
    }
    start = f"In {container(deployment)}:\n\n    {settings.root}/serve.sh"
    whose = (
        "config.pbtxt and model.yaml are ours; model.py and helpers are NVIDIA's, and `serve.sh` "
        "copies them from the "
        "container. The backend takes one request per call and batches inside: max_batch_size 0 says "
        "so to Triton."
    )
    return {
        "README.md": notes(
            deployment,
            "Triton (LLM API)",
            (("Start", start), ("Ask", f"    {question}"), ("What is whose", whose)),
        ),
        "serve.sh": _write_script(deployment, settings, model),
        "repository/tensorrt_llm/config.pbtxt": triton_configs.to_text(triton_configs.llmapi()),
        "repository/tensorrt_llm/1/model.yaml": yaml.safe_dump(document, sort_keys=False),
    }


def trees(deployment: Deployment) -> Mapping[str, Path]:
    """The checkpoint and the autotuner's cache."""
    return llm_api.trees(deployment)


def _write_script(deployment: Deployment, settings: TritonSettings, model: str) -> str:
    """One server process, which starts the ranks itself; model.yaml says the decoupled mode."""
    # our files are copied last: the container's model.yaml must not stay
    copy = f"""here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
templates=${{TEMPLATES:-{TEMPLATES}}}
[ -d "$templates/1" ] || refuse "$templates/1 is missing; it holds NVIDIA's model.py, name it in TEMPLATES"
repository=$scratch/repository
mkdir -p "$repository/tensorrt_llm"
cp -R "$templates/1" "$repository/tensorrt_llm/"
cp -R "$here/repository/." "$repository"
"""
    ports = {"http": settings.http_port, "grpc": settings.grpc_port, "metrics": settings.metrics_port}
    options = " ".join(f"--{name}-port={port}" for name, port in ports.items())
    return start_script.script(
        f"Serves {deployment.label} with Triton's LLM-API backend; run it in NVIDIA's Triton container.",
        start_script.needs_version(deployment),
        start_script.needs_gpus(deployment),
        start_script.needs_files([model]),
        copy,
        llm_api.environment(deployment, settings),
        f'serve tritonserver --model-repository="$repository" \\\n  {options}\n',
    )
