"""A published version with its checkpoint, in a store of its own, and another store to import into."""

import dataclasses
import json
from pathlib import Path

import pytest

from artifacts import digest
from artifacts.client import Client
from artifacts.registry.registry import Metric, Publication
from pipeline.process.host import Host
from tests.checkpoints import CONFIG, checkpoint, lay
from tests.pipeline.export.published import ENGINE_FP8_TP2, engine_json, write_engine

NAME = "team/tiny_fp8"

QUANTIZED = {
    **CONFIG,
    "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]},
}

HOST = Host(gpus=(), cpu="avx2", cores=2, memory_bytes=1 << 30, tools={})


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A client of a store in which NAME:1 is published, with lineage from its source on."""
    client = Client(str(tmp_path / "store"))
    files = checkpoint() | {"config.json": json.dumps(QUANTIZED).encode()}
    papers = {"LICENSE": files.pop("LICENSE"), "README.md": files.pop("README.md")}
    quantized = files | {"hf_quant_config.json": b"{}", "coverage.json": b"{}"}
    made = {
        "source": lambda draft: lay(draft, checkpoint() | papers),
        "quantized_checkpoint": lambda draft: lay(draft, quantized),
        "engine": lambda draft: write_engine(ENGINE_FP8_TP2, draft),
    }
    lineage = {kind: digest.of_json([NAME, kind]) for kind in made}
    for kind, write in made.items():
        with client.store.write(lineage[kind], kind=kind, step={"kind": kind}, host={}) as draft:
            write(draft.path)
    facts = {name: engine_json(ENGINE_FP8_TP2)[name] for name in ("backend", "format", "dtype", "tp", "pp")}
    client.registry.publish(
        Publication(
            name=NAME,
            alias="prod",
            engine_key=lineage["engine"],
            model="acme/tiny",
            recipe={"name": NAME, "model": {"path": "/home/somebody/tiny"}, "format": "fp8"},
            verdict="PASS",
            facts={**facts, "kv_cache": "auto", "toolchain": {}},
            checks=[{"metric": "kl", "limit": 0.1, "outcome": "PASS"}],
            metrics=[Metric("kl", 0.012, 0.011, 0.013), Metric("tokens_per_s@64", 4210.5)],
            source={"repo": "acme/tiny", "revision": "3f1c9a7b", "licence": "apache-2.0"},
            lineage=lineage,
        )
    )
    return client


@pytest.fixture
def elsewhere(tmp_path: Path) -> Client:
    """A client of an empty store."""
    return Client(str(tmp_path / "elsewhere"))


@pytest.fixture
def host() -> Host:
    return dataclasses.replace(HOST)
