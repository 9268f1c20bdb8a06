"""Runs a built TensorRT engine through the TensorRT-LLM that it was built with."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.drafting.eagle import depth, tree, widest
from pipeline.drafting.lookahead import sizes
from pipeline.drafting.medusa_tree import choices
from pipeline.errors import BackendUnavailable, SourceError
from pipeline.process import host
from pipeline.process.host import Host
from pipeline.toolchains.discovery import matching
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm.engine import Engine, Runtime, description, opened
from pipeline.trtllm.host_check import mismatches

KV_CACHE_FRACTION = 0.9
"""Share of the GPU memory left by the engine that its KV cache takes while it is scored and measured."""


@contextmanager
def load(directory: Path) -> Iterator[Engine]:
    """Loads an engine with a toolchain of this host; BackendUnavailable where it cannot be loaded here."""
    toolchain = matching(description(directory)["toolchain"])
    require(directory, host.probe(), toolchain)
    with opened(lambda scratch: runtime(directory, toolchain)) as engine:
        yield engine


def require(directory: Path, this_host: Host, toolchain: Toolchain) -> None:
    """Raises BackendUnavailable with every reason why the engine must not be loaded here.

    SourceError for an engine whose windows are unknown.
    """
    if problems := mismatches(description(directory), this_host, toolchain):
        raise BackendUnavailable("\n  ".join([f"{directory} cannot be loaded here", *problems]))
    # Without them the runtime would let every layer see all positions, and not say so.
    if "attention_windows" not in description(directory):
        raise SourceError(f"{directory}: its description lacks the attention windows; build its recipe again")


def runtime(directory: Path, toolchain: Toolchain) -> Runtime:
    """How the engine is loaded, and the twin that is scored in its place."""
    about = description(directory)
    scored = directory / about["scored"] if about.get("scored") else directory
    problem = unscored(scored)
    twin = scored != directory and not problem
    return Runtime(
        about=about,
        toolchain=toolchain,
        job=_job(directory, about, about["settings"]),
        mounts=(directory,),
        scoring=_job(scored, description(scored), {}) if twin else None,  # the twin proposes nothing
        unscored=problem,
    )


def unscored(directory: Path) -> str:
    """Why an engine gives no scores; empty where it does."""
    file = directory / "config.json"
    if not file.is_file():
        return f"{directory}: the twin that is scored is not here; it stays with the published version"
    if json.loads(file.read_text())["build_config"].get("gather_context_logits"):
        return ""
    return (
        f"{directory}: built without gather_context_logits, so that its logits cannot be read; build it "
        "again with the option on"
    )


def _job(directory: Path, about: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the worker loads; windows are passed as settings, because engines do not store them.

    Lookahead engines propose with sizes, Medusa's and EAGLE's with a tree, that they have room for.
    """
    job = {
        "kind": "engine",
        "model": str(directory),
        "kv_cache_fraction": KV_CACHE_FRACTION,
        "attention_windows": about["attention_windows"],
    }
    if settings.get("speculative_decoding_mode") == "lookahead_decoding":
        job["lookahead"] = list(sizes(settings["max_draft_len"]))
    if settings.get("speculative_decoding_mode") == "medusa":
        job["medusa"] = _medusa(directory, settings["max_draft_len"])
    if settings.get("speculative_decoding_mode") == "eagle":
        job["eagle"] = _eagle(directory, settings["max_draft_len"])
    return job


def _medusa(directory: Path, max_draft_len: int) -> dict[str, Any]:
    """Fields of TensorRT-LLM's MedusaDecodingConfig."""
    heads = json.loads((directory / "config.json").read_text())["pretrained_config"]["num_medusa_heads"]
    tree = choices(heads, max_draft_len)
    return {"max_draft_len": max_draft_len, "medusa_choices": tree, "num_medusa_heads": heads}


def _eagle(directory: Path, max_draft_len: int) -> dict[str, Any]:
    """Fields of TensorRT-LLM's EagleDecodingConfig, which requires a net's name; the engine holds the net."""
    paths = tree(max_draft_len)
    return {
        "max_draft_len": max_draft_len,
        "eagle_choices": paths,
        "num_eagle_layers": depth(paths),
        "max_non_leaves_per_layer": widest(paths),
        "speculative_model_dir": str(directory),
        "speculative_model": str(directory),
    }
