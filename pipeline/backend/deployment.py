"""Everything a server's configuration needs of a published engine, as a value; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["draft_tokens_external", "lookahead_decoding", "medusa", "eagle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Speed of one batch size, as it was registered with the version."""

    batch_size: int
    tokens_per_s: float
    ttft_ms_p95: float | None = None
    itl_ms_p95: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What a TensorRT engine was built for, as its own `config.json` says."""

    max_beam_width: int
    max_input_len: int
    max_num_tokens: int
    max_draft_len: int
    logits_dtype: str
    paged_context: bool
    """Built with paged context FMHA, which KV reuse and chunked context need."""
    context_logits: bool
    weight_streaming: bool
    gpus_per_node: int
    speculation: Mode | None
    medusa_heads: int = 0
    """Heads that propose tokens in an engine for Medusa."""
    windows: tuple[int, ...] | None = None
    """Positions that each layer sees, a setting of the runtime; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFiles:
    """Contents of an engine's files beside its `engine.json`; they decide which servers load it."""

    limits: EngineLimits | None = None
    """Of an engine that trtllm-build wrote."""
    llm_options: Mapping[str, Any] | None = None
    """Options of TensorRT-LLM's LLM API, for a checkpoint that it loads."""
    draft: Path | None = None
    """Directory of the draft model's engine, built as a pair with this one."""
    stated: Mapping[str, int] = field(default_factory=dict)
    """Layout and limits as the toolchain wrote them, under the names of `Deployment`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The quantized checkpoint that an engine was built from, in unified Hugging Face layout."""

    path: Path
    architecture: str
    """Class name in transformers."""
    quant_algo: str | None
    """As `hf_quant_config.json` says; None where nothing is quantized."""
    kv_cache_quant_algo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One version of the registry, with the contents of its files."""

    name: str
    number: int
    engine_key: str
    engine: Path
    """Directory of the engine in the store."""
    backend: str
    format: str
    """For people; `mixed` where linears differ."""
    dtype: str
    kv_cache: str
    tp: int
    pp: int
    ep: int
    max_batch_size: int
    max_seq_len: int
    versions: Mapping[str, str]
    """Of what built it: `tensorrt_llm`, `tensorrt`, `cuda`, ..."""
    gpu: str | None
    """Name of the GPU that it was built on, as the driver reports it."""
    sm: int | None
    """Compute capability times ten."""
    memory_bytes_per_rank: tuple[int, ...] = ()
    limits: EngineLimits | None = None
    """Of a TensorRT engine; None where it is none."""
    llm_options: Mapping[str, Any] | None = None
    """Options of TensorRT-LLM's LLM API that it was measured with; None where it is not served by that."""
    draft: "Deployment | None" = None
    """Engine of the draft model, in `draft/`."""
    checkpoint: Checkpoint | None = None
    """None where it is no longer in the store."""
    measured: tuple[Measured, ...] = field(default=())

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.tp * self.pp

    @property
    def version(self) -> str:
        """Version of TensorRT-LLM that built it; empty for other backends."""
        return self.versions.get("tensorrt_llm", "")

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of that version; (0, 0) where there is none."""
        return release_of(self.version)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one host, as the engine's mapping has it."""
        return self.limits.gpus_per_node if self.limits is not None else 8

    @property
    def label(self) -> str:
        """The version, e.g. `llama/fp8:3`."""
        return f"{self.name}:{self.number}"

    @property
    def slug(self) -> str:
        """The name as a DNS label: lower-case letters, digits and hyphens, at most 50 characters."""
        # Stripped twice, because the cut may end at a hyphen.
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:50].strip("-") or "engine"


def release_of(version: str) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) for something else."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
