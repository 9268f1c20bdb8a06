"""Tiny published versions, written by hand as the engine steps write them, in a real store and registry.

No engine here computes anything: files hold a line that says what they stand for. Their `engine.json`,
`config.json` and `llm_options.yaml` have the keys and types that the toolchains write.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from artifacts import digest
from artifacts.registry.registry import Metric, Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.version import VersionRecord
from pipeline.backend.deployment import Deployment
from pipeline.export.engine_reader import read_deployment

TOOLCHAINS = {
    "0.16.0": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0", "cuda": "12.6.3"},
    "1.2.0": {"tensorrt_llm": "1.2.0", "tensorrt": "10.14.1", "cuda": "13.0"},
    "1.1.0": {"tensorrt_llm": "1.1.0", "torch": "2.9.0", "cuda": "13.0"},
}

SPEEDS = {1: 151.25, 64: 4210.5}
"""Batch size -> tokens/s."""

FACTS = ("backend", "format", "dtype", "kv_cache", "tp", "pp", "world_size", "device", "sm", "toolchain")
"""What a version is registered with, of its engine.json."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What is published."""

    backend: str = "tensorrt"
    toolchain: str = "0.16.0"
    name: str = "llama-3.1-8b/fp8_tp2_h100"
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Changes of engine.json."""
    build: Mapping[str, Any] = field(default_factory=dict)
    """Changes of config.json's build_config."""
    plugins: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    """Changes of config.json's pretrained_config."""
    draft: "Version | None" = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Changes of llm_options.yaml."""
    quantization: Mapping[str, Any] | None = field(
        default_factory=lambda: {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    )
    """Of hf_quant_config.json; None: the checkpoint is unquantized."""
    checkpoint: bool = True
    """Whether the checkpoint is in the store."""


ENGINE_FP8_TP2 = Version()
ENGINE_WITH_DRAFT = Version(
    toolchain="1.2.0",
    name="llama-3.1-8b/fp8_draft",
    engine={"tp": 1, "world_size": 1},
    build={"max_draft_len": 4, "speculative_decoding_mode": 2, "max_batch_size": 64},
    draft=Version(toolchain="1.2.0", engine={"tp": 1, "world_size": 1}, build={"max_num_tokens": 2048}),
)
TORCH_FP8_TP2 = Version(backend="trtllm_torch", toolchain="1.1.0", name="llama-3.1-8b/fp8_torch")
AOTI = Version(backend="aoti", toolchain="1.1.0", name="demo/int8", quantization=None, checkpoint=False)


def engine_json(version: Version) -> dict[str, Any]:
    """Ours: what was really built."""
    return {
        "backend": version.backend,
        "format": "fp8",
        "dtype": "bfloat16",
        "kv_cache": "float8_e4m3fn",
        "tp": 2,
        "pp": 1,
        "ep": 1,
        "world_size": 2,
        "max_batch_size": 64,
        "max_seq_len": 8192,
        "attention_windows": None,
        "vocab_size": 128256,
        "device": "cuda",
        "gpu": "NVIDIA H100 80GB HBM3",
        "sm": 90,
        "toolchain": TOOLCHAINS[version.toolchain],
        "weight_bytes": {"rank0.engine": 4_600_000_000},
        "memory_bytes_per_rank": [41_000_000_000, 41_000_000_000],
        "settings": {},
        "differences": [],
        **version.engine,
    }


def config_json(version: Version) -> dict[str, Any]:
    """TensorRT-LLM's: version, model and how it was built."""
    said = engine_json(version)
    return {
        "version": said["toolchain"]["tensorrt_llm"],
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "bfloat16",
            "logits_dtype": "float32",
            "vocab_size": 128256,
            "mapping": {
                "world_size": said["tp"] * said["pp"],
                "tp_size": said["tp"],
                "pp_size": said["pp"],
                "gpus_per_node": 8,
            },
            "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
            **version.model,
        },
        "build_config": {
            "max_input_len": 8192,
            "max_seq_len": said["max_seq_len"],
            "max_batch_size": said["max_batch_size"],
            "max_beam_width": 1,
            "max_num_tokens": 8192,
            "max_draft_len": 0,
            "speculative_decoding_mode": 1,
            "gather_context_logits": True,
            "kv_cache_type": "PAGED",
            "weight_streaming": False,
            "plugin_config": {"use_paged_context_fmha": True, "tokens_per_block": 64, **version.plugins},
            **version.build,
        },
    }


def llm_options(version: Version) -> dict[str, Any]:
    """Of the PyTorch backend: what the engine was warmed up and measured with."""
    said = engine_json(version)
    return {
        "tensor_parallel_size": said["tp"],
        "pipeline_parallel_size": said["pp"],
        "max_batch_size": said["max_batch_size"],
        "max_seq_len": said["max_seq_len"],
        "max_num_tokens": 8192,
        "kv_cache_config": {"free_gpu_memory_fraction": 0.9, "enable_block_reuse": True, "dtype": "fp8"},
        "cuda_graph_config": {"batch_sizes": [1, 2, 4, 8, 16, 32, 64], "enable_padding": True},
        "enable_chunked_prefill": True,
        **version.options,
    }


def write_engine(version: Version, out: Path) -> None:
    """Writes the output directory of an engine step."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer").mkdir()
    (out / "tokenizer" / "tokenizer.json").write_text("{}\n")
    (out / "engine.json").write_text(json.dumps(engine_json(version), indent=1) + "\n")
    if version.backend == "tensorrt":
        (out / "config.json").write_text(json.dumps(config_json(version), indent=1) + "\n")
        (out / "rank0.engine").write_text("stands for the plan of rank 0\n")
    if version.backend == "trtllm_torch":
        (out / "llm_options.yaml").write_text(yaml.safe_dump(llm_options(version), sort_keys=False))
        (out / "tuning").mkdir()
        (out / "tuning" / "autotuner_cache.json").write_text('{"metadata": {}, "rank_0": {}}\n')
    if version.draft is not None:
        (out / "scoring").mkdir()
        (out / "scoring" / "rank0.engine").write_text("stands for the twin that is scored\n")
        write_engine(version.draft, out / "draft")


def write_checkpoint(version: Version, out: Path) -> None:
    """Writes the output directory of a quantized_checkpoint step."""
    (out / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    (out / "model.safetensors").write_text("stands for the weights\n")
    if version.quantization is not None:
        stated = {"producer": {"name": "modelopt"}, "quantization": dict(version.quantization)}
        (out / "hf_quant_config.json").write_text(json.dumps(stated) + "\n")


def publish(version: Version, root: Path) -> tuple[LocalStore, VersionRecord]:
    """Puts a version into the store and registry of a directory."""
    store = open_store(root)
    asked = f"{version.name} {version.toolchain}"
    engine, checkpoint = (digest.of_json([kind, asked]) for kind in ("engine", "checkpoint"))
    with store.write(engine, kind="engine", step={"asked": asked}, host={}) as draft:
        write_engine(version, draft.path)
    if version.checkpoint:
        with store.write(checkpoint, kind="quantized_checkpoint", step={"asked": asked}, host={}) as draft:
            write_checkpoint(version, draft.path)
    said = engine_json(version)
    registry = open_registry(store.registry_url)
    registry.publish(
        Publication(
            name=version.name,
            alias="prod",
            engine_key=engine,
            recipe={"name": version.name, "format": "fp8"},
            verdict="PASS",
            facts={
                **{name: deepcopy(said[name]) for name in FACTS},
                "gpus": [{"name": said["gpu"], "sm": said["sm"], "driver": "560.35.05"}] * said["world_size"],
            },
            lineage={"engine": engine, "quantized_checkpoint": checkpoint},
            metrics=[
                metric
                for batch, speed in SPEEDS.items()
                for metric in (
                    Metric(f"tokens_per_s@{batch}", speed),
                    Metric(f"ttft_ms_p95@{batch}", 20.0 + batch),
                )
            ],
        )
    )
    return store, registry.resolve(version.name)


def deployment(version: Version, root: Path) -> Deployment:
    """What an exporter sees of a version."""
    store, record = publish(version, root)
    return read_deployment(record, store)
