"""Engines of both backends for a contract toolchain, and what transformers says of the same source."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from pipeline import engines
from pipeline.backend.build_request import BuildRequest
from pipeline.models.config_json import read_shape
from pipeline.process.host import Gpu, Host
from pipeline.toolchains.discovery import discover
from pipeline.toolchains.toolchain import Choice, Toolchain
from pipeline.trtllm.windows import attention_windows
from recipes.precision import Precision
from recipes.schema import Engine
from tests.jobs import build_trtllm_torch as build
from tests.pipeline.engines import checkpoints

GPU = Gpu("NVIDIA H100 80GB HBM3", 90, 81559 << 20, "550.54.15")
HOST = Host(gpus=(GPU, GPU), cpu="avx2", cores=2, memory_bytes=1 << 34, tools={})
LIMITS: dict[str, Any] = {"max_batch_size": 3, "max_seq_len": 40}


def found(directory: Path) -> Toolchain:
    """The contract toolchain in a directory, probed."""
    (one,) = discover(None, {"PATH": f"{directory / 'bin'}:/usr/bin:/bin"})
    assert not one.problem, one.problem
    return one


def wanted(source: Path, chain: Toolchain, **engine: object) -> BuildRequest:
    """What a recipe asks of the PyTorch backend."""
    return BuildRequest(
        engine=Engine(backend="trtllm_torch", **{**LIMITS, **engine}),
        shape=read_shape(json.loads((source / "config.json").read_text())),
        precision=Precision.parse("none"),
        kv_cache="auto",
        host=HOST,
        choice=Choice(toolchain=chain),
    )


def torch_engine(
    source: Path, chain: Toolchain, out: Path, places: dict[str, Any] | None = None, **engine: object
) -> Path:
    """Builds an engine of the PyTorch backend, as its step does."""
    backend, asked = engines.backend("trtllm_torch"), wanted(source, chain, **engine)
    assert backend.missing(asked) is None
    assert backend.reasons(asked) == []
    made = asked.engine
    params = {
        "backend": "trtllm_torch", "format": "none", "kv_cache": "auto", "target": made.target, "tp": made.tp,
        "pp": made.pp, "ep": made.ep, "max_batch_size": made.max_batch_size, "max_seq_len": made.max_seq_len,
        "options": backend.settings(asked), "toolchain": backend.identity(asked),
    }  # fmt: skip
    job = {"params": params, "places": {"toolchain": asdict(chain), **(places or {})}}
    out.mkdir()
    build({**job, "inputs": {"quantized_checkpoint": str(source)}}, out, lambda *_: None)
    return out


def tensorrt_engine(
    source: Path, chain: Toolchain, root: Path, tp: int = 1, pp: int = 1, **build_config: object
) -> Path:
    """Writes the engine files that the contract toolchain's builder writes, and our description of them."""
    sharded = checkpoints.shard(source, tp, pp, root / f"sharded_{tp}_{pp}")
    out = root / "engine"
    out.mkdir()
    config = json.loads((sharded / "config.json").read_text())
    header = json.dumps({"gpu": GPU.name, "tensorrt": chain.versions["tensorrt"]}).encode()
    for rank in range(tp * pp):
        tensors = (sharded / f"rank{rank}.safetensors").read_bytes()
        (out / f"rank{rank}.engine").write_bytes(header + b"\n" + tensors)
    built = {**LIMITS, "gather_context_logits": True, **build_config}
    (out / "config.json").write_text(
        json.dumps({"version": chain.version, "pretrained_config": config, "build_config": built})
    )
    about = {
        "settings": {}, "backend": "tensorrt", "tp": tp, "pp": pp, "world_size": tp * pp, "vocab_size": config["vocab_size"], **LIMITS,
        "attention_windows": attention_windows(config["layer_windows"], LIMITS["max_seq_len"]),
        "gpu": GPU.name, "sm": GPU.sm, "driver": GPU.driver, "toolchain": dict(chain.versions),
    }  # fmt: skip
    (out / "engine.json").write_text(json.dumps(about))
    return out


def use(monkeypatch, directory: Path) -> None:
    """Puts a contract toolchain's programs on PATH."""
    monkeypatch.setenv("PATH", f"{directory / 'bin'}:/usr/bin:/bin")


def logprobs(source: Path, tokens: torch.Tensor) -> torch.Tensor:
    """What transformers says of tokens (B, T): log-probabilities (B, T, V)."""
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(tokens).logits.log_softmax(-1)


def scores_are(engine, tokens, expected) -> None:
    """Compares an engine's scores of all tokens with log-probabilities (B, T, V)."""
    ids = expected.topk(3).indices
    parts = list(engine.score(tokens, tokens, ids))
    assert [len(part.top1) for part in parts] == [3, 2]  # five sequences, three at once
    joined = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in ("targets", "indices", "top1")
    }
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums in another order
    torch.testing.assert_close(
        joined["targets"], expected.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), **close
    )
    torch.testing.assert_close(joined["indices"], expected.gather(-1, ids), **close)
    assert torch.equal(joined["top1"], expected.argmax(-1))
