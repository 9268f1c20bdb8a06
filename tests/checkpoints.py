"""A small checkpoint as bytes, and builds of the source step with it."""

import json
import os
import subprocess  # noqa: TID251 downloads are killed from outside
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from pipeline.errors import SourceError
from pipeline.sources import copying
from pipeline.sources.snapshot import local_digest
from tests import hub as hubs
from tests.jobs import build_source

ROOT = Path(__file__).resolve().parents[1]
HIDDEN, VOCAB = 64, 512

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
    "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128,
    "vocab_size": VOCAB, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
}  # fmt: skip


TOKENIZER = b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
"""The smallest that the tokenizers library reads."""


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed).standard_normal
    return {"model.embed_tokens.weight": draw((VOCAB, HIDDEN), np.float32),
            "model.norm.weight": draw(HIDDEN, np.float32)}  # fmt: skip


def checkpoint() -> dict[str, bytes]:
    """Two weight files with their index, a tokenizer, papers, and things that must stay behind."""
    first, second = ({name: value} for name, value in tensors().items())
    weights = {
        "model-00001-of-00002.safetensors": save(first),
        "model-00002-of-00002.safetensors": save(second),
    }
    weight_map = {
        tensor: file for file, held in zip(weights, (first, second), strict=True) for tensor in held
    }
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": weight_map}).encode(),
        **weights,
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": b"{}",
        "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
        "LICENSE": b"do what you like",
        "README.md": b"# tiny",
    }


LEFT_BEHIND = {
    "pytorch_model.bin": b"\x80pickle", "modeling_tiny.py": b"import os", "training_args.bin": b"\x80",
    "original/consolidated.safetensors": b"x", "consolidated.safetensors": b"x", ".gitattributes": b"*",
    "additional_chat_templates/run.py": b"import os", "additional_chat_templates/of/others.jinja": b"x",
    "others/tool_use.jinja": b"x",
}  # fmt: skip


FIRST = "model-00001-of-00002.safetensors"


def lay(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def held(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def digests(path: Path) -> str:
    return copying.sha256(path, lambda _: None)


class Reports(list[tuple[int, int, str]]):
    def __call__(self, done: int, total: int, unit: str) -> None:
        self.append((done, total, unit))


def start_build(
    job: dict[str, Any], out: Path, *, builder: str = "build_source", **env: str
) -> "subprocess.Popen[bytes]":
    """Builds in another process."""
    code = (
        f"import json, sys; from pathlib import Path; from tests.jobs import {builder} as build; "
        "build(json.loads(sys.argv[1]), Path(sys.argv[2]), lambda *_: None)"
    )
    argv = [sys.executable, "-c", code, json.dumps(job), str(out)]
    with out.with_name(f"{out.name}.log").open("wb") as log:
        return subprocess.Popen(argv, cwd=ROOT, env=os.environ | env, stderr=log)


def until(happened: Callable[[], bool]) -> None:
    """Waits for something another process does."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hub_job(hub: hubs.Hub, tmp_path: Path, **params: Any) -> dict[str, Any]:
    return {"params": {"repo": hubs.REPO, "revision": hubs.COMMIT} | params,
            "places": {"endpoint": hub.address, "cache": str(tmp_path / "cache")}, "inputs": {}}  # fmt: skip


def local_job(path: Path, digest: str | None = None) -> dict[str, Any]:
    return {
        "params": {"digest": digest or local_digest(path, digests)},
        "places": {"path": str(path)},
        "inputs": {},
    }


def refused(job: dict[str, Any], out: Path, *said: str) -> None:
    """Builds and expects a SourceError that says all this and shows no draft path nor signed address."""
    with pytest.raises(SourceError) as caught:
        build_source(job, out, Reports())
    for text in (*said, ";"):
        assert text in str(caught.value)
    assert str(out) not in str(caught.value)
    assert "signature" not in str(caught.value)
