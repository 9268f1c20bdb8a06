"""From a registered version to a deployment: reads what the engine itself says, and checks that it agrees."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from artifacts.store.local import LocalStore
from artifacts.version import VersionRecord
from pipeline.errors import ExportRefused
from pipeline.export.deployment import Checkpoint, Deployment, EngineLimits, Measured, Mode

MODES = {2: "draft_tokens_external", 4: "medusa", 8: "lookahead_decoding", 32: "eagle"}
"""Number of TensorRT-LLM's SpeculativeDecodingMode (v0.16, an integer flag in config.json) -> its name."""


def read_deployment(record: VersionRecord, store: LocalStore) -> Deployment:
    """What a version offers to a server; ExportRefused where its files disagree about it."""
    directory = store.directory(record.address)
    try:
        deployment = read_engine(directory, record)
    except KeyError as exc:
        raise ExportRefused(
            f"{directory}: its description lacks {exc}; it was built by another version, build its "
            "recipe again"
        ) from None
    return replace(deployment, checkpoint=_find_checkpoint(record, store), measured=_read_measured(record))


def read_engine(directory: Path, record: VersionRecord) -> Deployment:
    """Reads `engine.json` and what TensorRT-LLM itself wrote beside it."""
    engine_record = _read_json(directory / "engine.json")
    backend = engine_record["backend"]
    built = _read_json(directory / "config.json") if backend == "tensorrt" else None
    options = directory / "llm_options.yaml"
    deployment = Deployment(
        name=record.name,
        number=record.number,
        engine_key=record.engine_key,
        engine=directory,
        backend=backend,
        format=engine_record["format"] if isinstance(engine_record["format"], str) else "mixed",
        dtype=engine_record["dtype"],
        kv_cache=engine_record["kv_cache"],
        tp=engine_record["tp"],
        pp=engine_record["pp"],
        ep=engine_record.get("ep", 1),
        max_batch_size=engine_record["max_batch_size"],
        max_seq_len=engine_record["max_seq_len"],
        versions={name: str(value) for name, value in engine_record["toolchain"].items()},
        gpu=engine_record.get("gpu") or _find_gpu(record),
        sm=engine_record.get("sm"),
        memory_bytes_per_rank=tuple(engine_record.get("memory_bytes_per_rank", ())),
        limits=_read_limits(built, engine_record) if built is not None else None,
        llm_options=_read_options(options) if backend == "trtllm_torch" else None,
        draft=_read_draft(directory / "draft", record) if backend == "tensorrt" else None,
    )
    _check_agreement(deployment, built)
    return deployment


def _read_draft(directory: Path, record: VersionRecord) -> Deployment | None:
    """The draft model's engine, built as a pair with this one."""
    return read_engine(directory, record) if directory.is_dir() else None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        raise ExportRefused(f"{file}: missing; the engine is incomplete, build its recipe again") from None
    except ValueError as exc:
        raise ExportRefused(f"{file}: is not JSON ({exc}); build its recipe again") from None
    if not isinstance(document, dict):
        raise ExportRefused(f"{file}: holds no JSON object; build its recipe again")
    return document


def _read_options(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ExportRefused(f"{file}: missing; the engine is incomplete, build its recipe again") from None
    if not isinstance(document, dict):
        raise ExportRefused(f"{file}: holds no options; build its recipe again")
    return document


def _read_limits(built: Mapping[str, Any], engine_record: Mapping[str, Any]) -> EngineLimits:
    """What `config.json` says; `pretrained_config` is the model, `build_config` what trtllm-build did."""
    model, build = built["pretrained_config"], built["build_config"]
    windows = engine_record["attention_windows"]
    plugins = build["plugin_config"]
    return EngineLimits(
        max_beam_width=build["max_beam_width"],
        max_input_len=build["max_input_len"],
        max_num_tokens=build["max_num_tokens"],
        max_draft_len=build.get("max_draft_len") or 0,
        logits_dtype=model["logits_dtype"],
        paged_context=plugins.get("use_paged_context_fmha") is True,
        context_logits=build.get("gather_context_logits") is True,
        weight_streaming=build.get("weight_streaming") is True,
        gpus_per_node=model["mapping"].get("gpus_per_node", 8),
        speculation=_read_mode(build.get("speculative_decoding_mode"), engine_record.get("settings", {})),
        medusa_heads=model.get("num_medusa_heads") or 0,
        windows=tuple(windows) if windows is not None else None,
    )


def _read_mode(stated_mode: Any, settings: Mapping[str, Any]) -> Mode | None:
    """The speculative mode: a number or a name in config.json, by version; ours says it by name."""
    name = MODES.get(stated_mode) if isinstance(stated_mode, int) else str(stated_mode or "").lower()
    name = name or settings.get("speculative_decoding_mode")
    return cast("Mode", name) if name in get_args(Mode) else None


def _check_agreement(deployment: Deployment, built: Mapping[str, Any] | None) -> None:
    """Our description and what the toolchain wrote must be of the same engine."""
    in_engine = (
        _read_built_limits(built) if built is not None else _read_option_limits(deployment.llm_options or {})
    )
    wrong = [
        f"{name} is {getattr(deployment, name)} there and {engine_value} here"
        for name, engine_value in in_engine.items()
        if _differs(name, getattr(deployment, name), engine_value)
    ]
    if wrong:
        raise ExportRefused(
            f"{deployment.engine}: engine.json and what the toolchain wrote disagree ({'; '.join(wrong)}); "
            "build the recipe again"
        )


def _read_built_limits(built: Mapping[str, Any]) -> dict[str, int]:
    """What TensorRT-LLM's `config.json` says, under our names."""
    mapping, build = built["pretrained_config"]["mapping"], built["build_config"]
    return {
        "tp": mapping["tp_size"],
        "pp": mapping["pp_size"],
        "world_size": mapping["world_size"],
        "max_batch_size": build["max_batch_size"],
        "max_seq_len": build["max_seq_len"],
    }


def _read_option_limits(options: Mapping[str, Any]) -> dict[str, int]:
    """What the options of the LLM API say, under our names."""
    names = {
        "tp": "tensor_parallel_size",
        "pp": "pipeline_parallel_size",
        "max_batch_size": "max_batch_size",
        "max_seq_len": "max_seq_len",
    }
    return {field: options[option] for field, option in names.items() if option in options}


def _differs(name: str, registered: int, engine_value: int) -> bool:
    """Draft tokens make the builder's sequences longer than those that are promised, never shorter."""
    return engine_value < registered if name == "max_seq_len" else engine_value != registered


def _find_gpu(record: VersionRecord) -> str | None:
    return next((gpu["name"] for gpu in record.facts.get("gpus", [])), None)


def _find_checkpoint(record: VersionRecord, store: LocalStore) -> Checkpoint | None:
    """The quantized checkpoint of the version's lineage, or the source of an unquantized version."""
    key = record.lineage.get("quantized_checkpoint")
    if key is None and record.facts.get("format") == "none":
        key = record.lineage.get("source")
    if key is None or not store.has(key):
        return None
    path = store.directory(key)
    quant_config = path / "hf_quant_config.json"
    quantization = _read_json(quant_config)["quantization"] if quant_config.is_file() else {}
    return Checkpoint(
        path=path,
        architecture=_read_json(path / "config.json")["architectures"][0],
        quant_algo=quantization.get("quant_algo"),
        kv_cache_quant_algo=quantization.get("kv_cache_quant_algo"),
    )


def _read_measured(record: VersionRecord) -> tuple[Measured, ...]:
    """One row per batch size, from the metrics named `figure@batch`."""
    rows: dict[int, dict[str, float]] = {}
    for metric in record.metrics:
        figure, at, batch = metric.name.partition("@")
        # Other metrics may contain an @; a figure of one batch size ends in digits.
        if at and batch.isdigit():
            rows.setdefault(int(batch), {})[figure] = metric.value
    return tuple(
        Measured(
            batch_size=batch,
            tokens_per_s=row["tokens_per_s"],
            ttft_ms_p95=row.get("ttft_ms_p95"),
            itl_ms_p95=row.get("itl_ms_p95"),
        )
        for batch, row in sorted(rows.items())
        if "tokens_per_s" in row
    )
