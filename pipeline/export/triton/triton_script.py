"""The start script of an engine's Triton server: a process per rank, and NVIDIA's programs."""

import shlex

from pipeline.backend.deployment import Deployment
from pipeline.export import start_script
from pipeline.export.triton.triton_configs import BLS, LLM, POSTPROCESSING, PREPROCESSING
from pipeline.export.triton.triton_settings import TritonSettings
from pipeline.export.triton.triton_tensors import Dialect

TEMPLATES = "/app/all_models/inflight_batcher_llm"
"""Where NVIDIA's container keeps the models whose model.py we use."""


def start(deployment: Deployment, settings: TritonSettings, dialect: Dialect, files: list[str]) -> str:
    """Copies NVIDIA's programs beside our configurations, then runs one server process per rank."""
    return start_script.script(
        f"Serves {deployment.label} with Triton; run it in NVIDIA's Triton container.",
        start_script.needs_version(deployment),
        start_script.needs_gpus(deployment),
        start_script.needs_files(files),
        _copy_repository(deployment, dialect),
        _start_servers(deployment, settings),
    )


def _copy_repository(deployment: Deployment, dialect: Dialect) -> str:
    """A working copy: the export stays as it is, and may be mounted read-only."""
    engines = " ".join([LLM, *([f"{LLM}_draft"] if deployment.draft else [])])
    return f"""here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
templates=${{TEMPLATES:-{TEMPLATES}}}
[ -d "$templates" ] || refuse "$templates is missing; it holds NVIDIA's Python models, name it in TEMPLATES"
for name in {dialect.min_tokens} {dialect.seed}; do
  grep -q "\\"$name\\"" "$templates/{LLM}/config.pbtxt" || refuse "its models know no tensor $name"
done
repository=$scratch/repository
cp -R "$here/repository" "$repository"
chmod -R u+w "$repository"
for model in {PREPROCESSING} {POSTPROCESSING} {BLS}; do
  cp -R "$templates/$model/1" "$repository/$model/"
done
for model in {engines} ensemble; do mkdir -p "$repository/$model/1"; done
"""


def _start_servers(deployment: Deployment, settings: TritonSettings) -> str:
    """The first rank serves every model, the others take part in the engine only."""
    models = [LLM, *([f"{LLM}_draft"] if deployment.draft else [])]
    words: list[str] = []
    for rank in range(deployment.world_size):
        loads = (
            ["--model-control-mode=explicit", *(f"--load-model={name}" for name in models)] if rank else []
        )
        # Ranks beyond the first must not load the Python models, or each would answer requests.
        words += [
            # mpirun's separator: each rank is a program with arguments of its own
            *([":"] if rank else []),
            "-n", "1", "tritonserver", '--model-repository="$repository"', *loads,
            f"--http-port={settings.http_port}", f"--grpc-port={settings.grpc_port}",
            f"--metrics-port={settings.metrics_port}", "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name=prefix{rank}_",
        ]  # fmt: skip
    # that one word is expanded by the shell, and has its quotes already
    quoted = [word if "$repository" in word else shlex.quote(word) for word in words]
    lines = " ".join(quoted).replace(" : -n", " : \\\n  -n").replace(" --", " \\\n    --")
    return f"serve mpirun --allow-run-as-root \\\n  {lines}\n"
