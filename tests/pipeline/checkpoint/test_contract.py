"""What the converter writes is what the contract toolchain's loader wants, which knows only config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from tests.contract import checkpoint
from tests.jobs import build_sharded as build

QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
MIXED = {"default": "fp8", "except": {"model.layers.0.mlp.*": "int4_awq", "model.layers.1.*": "none"}}


@pytest.fixture
def converted(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], tmp_path: Path
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Converts a checkpoint; returns its directory and config.json."""

    def make(fmt="none", tp=1, pp=1, kv_cache="auto", **changed):
        out = tmp_path / "out"
        out.mkdir()
        params = {"tp": tp, "pp": pp, "format": fmt, "kv_cache": kv_cache, "layout_version": LAYOUT_VERSION}
        source = make_checkpoint(fmt, {**config, **changed}, kv_cache=kv_cache)
        build({"params": params, "places": {}, "inputs": {"checkpoint": str(source)}}, out, lambda *_: None)
        return out, json.loads((out / "config.json").read_text())

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "fmt", ["none", "fp8", "fp8_rowwise", "int8_sq", "int4_awq", "int4_wo", "w4a8_awq", MIXED]
)
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_every_rank_has_what_its_loader_wants(
    fmt, tp: int, pp: int, converted: Callable[..., tuple[Path, dict[str, Any]]]
):
    directory, config = converted(fmt, tp, pp, intermediate_size=512)
    for rank in range(tp * pp):
        checkpoint.check(directory, config, rank)


@pytest.mark.parametrize("kv_cache", ["fp8", "int8"])
def test_every_layer_has_the_scale_of_its_cache(
    kv_cache: str, converted: Callable[..., tuple[Path, dict[str, Any]]]
):
    directory, config = converted("fp8", 2, kv_cache=kv_cache)
    checkpoint.check(directory, config, 0)


@pytest.mark.parametrize("changed", [QWEN, {"tie_word_embeddings": True}, {"vocab_size": 101}], ids=str)
def test_biases_tied_heads_and_padded_tables_too(
    changed: dict[str, Any], converted: Callable[..., tuple[Path, dict[str, Any]]]
):
    directory, config = converted("fp8", 2, **changed)
    checkpoint.check(directory, config, 1)


def test_what_is_missing_misshapen_or_of_another_type_is_refused(
    converted: Callable[..., tuple[Path, dict[str, Any]]],
):
    directory, config = converted("int8_sq")
    file = directory / "rank0.safetensors"
    raw = file.read_bytes()
    name = b"layers.0.attention.qkv.weights_scaling_factor"
    file.write_bytes(raw.replace(name, name[:-1] + b"s"))
    with pytest.raises(RuntimeError, match="Required but not provided tensors"):
        checkpoint.check(directory, config, 0)
    file.write_bytes(raw.replace(b'"F32"', b'"I32"'))
    with pytest.raises(AssertionError, match="I32"):
        checkpoint.check(directory, config, 0)


def test_a_key_that_quantconfig_does_not_know_is_refused(
    converted: Callable[..., tuple[Path, dict[str, Any]]],
):
    directory, config = converted("fp8")
    config["quantization"]["smoothing"] = 0.5
    with pytest.raises(TypeError, match="unexpected keyword argument 'smoothing'"):
        checkpoint.check(directory, config, 0)
