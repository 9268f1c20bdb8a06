"""Limits of an engine for servers, read from trtllm-build's `config.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from pipeline.backend.deployment import EngineLimits, Mode, ServedFiles
from pipeline.backend.engine_files import read_object
from pipeline.engines.tensorrt.engine_settings import DRAFT

MODES = {2: "draft_tokens_external", 4: "medusa", 8: "lookahead_decoding", 32: "eagle"}
"""Number of TensorRT-LLM's SpeculativeDecodingMode (v0.16, an integer flag in config.json) -> its name."""


def read_served(directory: Path, about: Mapping[str, Any]) -> ServedFiles:
    """Reads an engine's limits, and finds the draft model's engine."""
    built, draft = read_object(directory / "config.json"), directory / DRAFT
    return ServedFiles(
        limits=_limits(built, about), stated=_stated(built), draft=draft if draft.is_dir() else None
    )


def _limits(built: Mapping[str, Any], about: Mapping[str, Any]) -> EngineLimits:
    """The limits; `pretrained_config` is the model, `build_config` what trtllm-build did."""
    model, build = built["pretrained_config"], built["build_config"]
    windows = about["attention_windows"]
    plugins = build["plugin_config"]
    return EngineLimits(
        max_beam_width=build["max_beam_width"],
        max_input_len=build["max_input_len"],
        max_num_tokens=build["max_num_tokens"],
        max_draft_len=build.get("max_draft_len") or 0,
        logits_dtype=model["logits_dtype"],
        # A version may lack the field or write a null: both are off.
        paged_context=plugins.get("use_paged_context_fmha") is True,
        context_logits=build.get("gather_context_logits") is True,
        weight_streaming=build.get("weight_streaming") is True,
        gpus_per_node=model["mapping"].get("gpus_per_node", 8),
        speculation=_mode(build.get("speculative_decoding_mode"), about.get("settings", {})),
        medusa_heads=model.get("num_medusa_heads") or 0,
        windows=tuple(windows) if windows is not None else None,
    )


def _mode(mode: Any, settings: Mapping[str, Any]) -> Mode | None:
    """The speculative mode: a number or a name in config.json, by version; a name in engine.json."""
    name = MODES.get(mode) if isinstance(mode, int) else str(mode or "").lower()
    name = name or settings.get("speculative_decoding_mode")
    return cast("Mode", name) if name in get_args(Mode) else None


def _stated(built: Mapping[str, Any]) -> dict[str, int]:
    """Layout and limits in TensorRT-LLM's `config.json`, under our names."""
    mapping, build = built["pretrained_config"]["mapping"], built["build_config"]
    return {
        "tp": mapping["tp_size"],
        "pp": mapping["pp_size"],
        "world_size": mapping["world_size"],
        "max_batch_size": build["max_batch_size"],
        "max_seq_len": build["max_seq_len"],
    }
