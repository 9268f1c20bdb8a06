"""What recipes ask of backend `tensorrt`, for tests: plain values with changes."""

from typing import Any

from pipeline.backend.build_request import BuildRequest
from pipeline.engines.tensorrt.capabilities import table
from pipeline.engines.tensorrt.rules import resolve_settings
from pipeline.engines.tensorrt.tensorrt_options import options_model
from pipeline.models.config_json import read_shape
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu, Host
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from recipes.schema import Engine, Speculative, Traffic

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072,
}  # fmt: skip
"""Sizes of an 8B Llama."""

H100 = Gpu("NVIDIA H100 80GB HBM3", 90, TARGETS["h100"].memory_bytes, "550.54.15")


def host(*gpus: Gpu) -> Host:
    """A host with these GPUs."""
    return Host(gpus=gpus, cpu="avx512f", cores=64, memory_bytes=1 << 40, tools={})


def toolchain(version: str) -> Toolchain:
    """An installation of one version."""
    versions = {"tensorrt_llm": version, "tensorrt": "10.7.0", "cuda": "12.6.3"}
    return Toolchain(name="path", kind="path", location="/opt/bin", versions=versions)


def wanted(version: str = "0.16.0", **changes: Any) -> BuildRequest:
    """An 8B Llama on two H100s, with changes; `engine`, `shape` and `precision` by their plain spellings."""
    engine = {"backend": "tensorrt", "target": "h100", "max_batch_size": 64, "max_seq_len": 4096}
    given: dict[str, Any] = {
        "engine": Engine(**(engine | changes.pop("engine", {}))),
        "shape": read_shape(CONFIG | changes.pop("config", {})),
        "precision": Precision.parse(changes.pop("format", "none")),
        "kv_cache": "auto",
        "host": host(H100, H100),
        "choice": Choice(toolchain=toolchain(version)),
    }
    return BuildRequest(**(given | changes))


def built(version: str = "0.16.0", options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The effective settings of a request."""
    return made(version, options, **changes).as_param()


def said(version: str = "0.16.0", options: dict[str, Any] | None = None, **changes: Any) -> str:
    """Its notes, one per line."""
    return "\n".join(made(version, options, **changes).notes)


def made(version: str, options: dict[str, Any] | None, **changes: Any) -> Any:
    """What the rules make of a request."""
    return resolve_settings(
        wanted(version, **changes), options_model(table(version)).model_validate(options or {})
    )


TRAFFIC = Traffic(input_tokens=2048, output_tokens=512, max_input_tokens=3000, concurrency=32)
EXTERNAL = Speculative(mode="draft_tokens_external", max_draft_len=5)
LOOKAHEAD = Speculative(mode="lookahead_decoding", max_draft_len=7)
EAGLE = Speculative(mode="eagle", max_draft_len=60)
