"""From a registered version to a deployment: reads what the engine itself says, and checks that it agrees."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from artifacts.store.local import LocalStore
from artifacts.version import VersionRecord
from pipeline.backend.deployment import Checkpoint, Deployment, Measured, ServedFiles
from pipeline.backend.engine_files import read_object
from pipeline.engines import find_backend
from pipeline.errors import ExportRefused


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
    # of the version, not of the engine: a draft inside has neither
    return replace(deployment, checkpoint=_find_checkpoint(record, store), measured=_read_measured(record))


def read_engine(directory: Path, record: VersionRecord) -> Deployment:
    """Reads `engine.json` and what TensorRT-LLM itself wrote beside it."""
    said = read_object(directory / "engine.json")
    backend = find_backend(said["backend"])
    # What an unknown backend wrote is described by engine.json alone, and exporters refuse it.
    served = backend.read_served(directory, said) if backend is not None else ServedFiles()
    deployment = Deployment(
        name=record.name,
        number=record.number,
        engine_key=record.engine_key,
        engine=directory,
        backend=said["backend"],
        format=said["format"] if isinstance(said["format"], str) else "mixed",
        dtype=said["dtype"],
        kv_cache=said["kv_cache"],
        tp=said["tp"],
        pp=said["pp"],
        ep=said.get("ep", 1),
        max_batch_size=said["max_batch_size"],
        max_seq_len=said["max_seq_len"],
        versions={name: str(value) for name, value in said["toolchain"].items()},
        # the host that the version records stands in for an engine that names no GPU
        gpu=said.get("gpu") or _find_gpu(record),
        sm=said.get("sm"),
        memory_bytes_per_rank=tuple(said.get("memory_bytes_per_rank", ())),
        limits=served.limits,
        llm_options=served.llm_options,
        draft=read_engine(served.draft, record) if served.draft is not None else None,
    )
    _check(deployment, served.stated)
    return deployment


def _check(deployment: Deployment, stated: Mapping[str, int]) -> None:
    """Our description and what the toolchain wrote must be of the same engine."""
    wrong = [
        f"{name} is {getattr(deployment, name)} there and {theirs} here"
        for name, theirs in stated.items()
        if _differs(name, getattr(deployment, name), theirs)
    ]
    if wrong:
        raise ExportRefused(
            f"{deployment.engine}: engine.json and what the toolchain wrote disagree ({'; '.join(wrong)}); "
            "build the recipe again"
        )


def _differs(name: str, registered: int, engine_value: int) -> bool:
    """Draft tokens make the builder's sequences longer than those that are promised, never shorter."""
    return engine_value < registered if name == "max_seq_len" else engine_value != registered


def _find_gpu(record: VersionRecord) -> str | None:
    return next((gpu["name"] for gpu in record.facts.get("gpus", [])), None)


def _find_checkpoint(record: VersionRecord, store: LocalStore) -> Checkpoint | None:
    """The quantized checkpoint of the version's lineage, or the source of an unquantized version."""
    key = record.lineage.get("quantized_checkpoint")
    # a quantized version without its checkpoint must not be served from its source
    if key is None and record.facts.get("format") == "none":
        key = record.lineage.get("source")
    if key is None or not store.has(key):
        return None
    path = store.directory(key)
    stated = path / "hf_quant_config.json"
    quantization = read_object(stated)["quantization"] if stated.is_file() else {}
    return Checkpoint(
        path=path,
        architecture=read_object(path / "config.json")["architectures"][0],
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
        # a metric of a user may also be named `something@8`
        if "tokens_per_s" in row
    )
