"""What servers of TensorRT-LLM's PyTorch backend need: checkpoint, options, the autotuner's cache."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.backend.deployment import Deployment
from pipeline.export.export_refusals import several_hosts
from pipeline.export.export_settings import Settings
from pipeline.step.reuse import TUNING

OLDEST = (1, 0)
"""First release whose PyTorch backend we build for."""

CACHES = "autotuner_cache*.json"
"""What the warm-up kept, in `tuning/` of the engine: one file, or one per rank, by version."""

CACHE = "autotuner_cache.json"
"""Name that the server is given for it; it adds the rank itself."""

DRAFT = "draft"
"""Directory of the draft model in the engine, as the options name it."""

OURS = ("model", "tokenizer", "backend", "triton_config")
"""Options that an exporter writes itself, with the paths of the export."""


def reasons(deployment: Deployment) -> list[str]:
    """Every reason why the PyTorch backend cannot serve it."""
    problems = []
    if deployment.release < OLDEST:
        problems.append(
            f"it was built with TensorRT-LLM {deployment.version or '(unknown)'}; the LLM API is known "
            "from 1.0"
        )
    if _find_source(deployment) is None:
        problems.append("its checkpoint is not in the store; build its recipe again")
    return [*problems, *several_hosts(deployment)]


def options(deployment: Deployment, settings: Settings) -> dict[str, Any]:
    """The options that it was measured with; the draft model is named by its path in the export."""
    options = {name: value for name, value in (deployment.llm_options or {}).items() if name not in OURS}
    speculation = options.get("speculative_config")
    # the options name it relative to the engine, which the server does not know
    if isinstance(speculation, Mapping) and speculation.get("speculative_model_dir") == DRAFT:
        place = settings.place(DRAFT, deployment.engine / DRAFT)
        options["speculative_config"] = {**speculation, "speculative_model_dir": place}
    return options


def model_path(deployment: Deployment, settings: Settings) -> str:
    """Path of the checkpoint where it is served."""
    source = _find_source(deployment)
    assert source is not None
    return settings.place("checkpoint", source)


def trees(deployment: Deployment) -> Mapping[str, Path]:
    """The checkpoint, the draft model, and what the autotuner kept."""
    source = _find_source(deployment)
    assert source is not None
    folders, draft, tuning = {"checkpoint": source}, deployment.engine / DRAFT, deployment.engine / TUNING
    # asked of the disk: other modes of speculation have options and no directory
    if draft.is_dir():
        folders[DRAFT] = draft
    if any(tuning.glob(CACHES)):  # else it says how the build went, and no more
        folders[TUNING] = tuning
    return folders


def environment(deployment: Deployment, settings: Settings) -> str:
    """Shell lines that give the server a copy of the autotuner's cache, which it also writes to."""
    lines, tuning = ["export TRTLLM_NO_USAGE_STATS=1"], deployment.engine / TUNING
    names = sorted(file.name for file in tuning.glob(CACHES))
    if names:
        place = settings.place(TUNING, tuning)
        files = " ".join(shlex.quote(f"{place}/{name}") for name in names)
        lines += [
            'mkdir "$scratch/tuning"',
            f'cp {files} "$scratch/tuning/"',
            # The export may be read-only, and the autotuner adds to its cache: it gets a writable copy.
            'chmod -R u+w "$scratch/tuning"',
            f'export TLLM_AUTOTUNER_CACHE_PATH="$scratch/tuning/{CACHE}"',
        ]
    return "\n".join(lines)


def _find_source(deployment: Deployment) -> Path | None:
    """The checkpoint inside the engine, else the one of the lineage."""
    # inside first: the engine brings the checkpoint that it runs
    inside = deployment.engine / "checkpoint"
    if (inside / "config.json").is_file():
        return inside
    return deployment.checkpoint.path if deployment.checkpoint is not None else None
