"""What config.json and quant_cfg.json say about linears and the KV cache."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.aoti.quantization import (
    LINEARS,
    UNQUANTIZED,
    LinearFormat,
    differences,
    kv_cache_of,
    linears_of,
)
from pipeline.errors import SourceError
from recipes.formats import FORMATS, Format
from recipes.precision import Precision

QKV = "transformer.layers.1.attention.qkv"


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS.values() if fmt.quant_algo])
def test_one_algorithm_is_every_linears(fmt: Format, tmp_path: Path):
    linears = linears_of({"quant_algo": fmt.quant_algo, "exclude_modules": ["lm_head"]}, 2, tmp_path)
    assert [set(layer) for layer in linears] == [set(LINEARS)] * 2
    assert {each for layer in linears for each in layer.values()} == {LinearFormat(fmt.name, fmt.block_size)}


def test_int4_blocks_say_whether_inputs_are_smoothed(tmp_path: Path):
    block = {"quant_algo": "W4A16_AWQ", "group_size": 64, "pre_quant_scale": False}
    assert linears_of(block, 1, tmp_path)[0]["mlp.fc"] == LinearFormat("int4_wo", 64)
    smoothed = {**block, "pre_quant_scale": True}
    assert linears_of(smoothed, 1, tmp_path)[0]["mlp.fc"] == LinearFormat("int4_awq", 64)


def test_excluded_linears_are_unquantized_by_name_and_by_pattern(tmp_path: Path):
    left = ["lm_head", QKV, "transformer.layers.0.*"]
    first, second = linears_of({"quant_algo": "FP8", "exclude_modules": left}, 2, tmp_path)
    assert set(first.values()) == {UNQUANTIZED}
    assert {name for name, each in second.items() if each == UNQUANTIZED} == {"attention.qkv"}


def test_mixed_precision_names_each_quantized_linear(tmp_path: Path):
    layers = {
        QKV: {"quant_algo": "FP8"},
        "transformer.layers.0.mlp.proj": {"quant_algo": "W4A8_AWQ", "group_size": 128},
    }
    (tmp_path / "quant_cfg.json").write_text(json.dumps({"quantized_layers": layers}))
    first, second = linears_of({"quant_algo": "MIXED_PRECISION"}, 2, tmp_path)
    assert first["mlp.proj"] == LinearFormat("w4a8_awq", 128)
    assert second["attention.qkv"] == LinearFormat("fp8")
    assert [*first.values(), *second.values()].count(UNQUANTIZED) == 8
    asked = Precision.parse({"default": "none", "except": {"model.layers.1.self_attn.?_proj": "fp8"}})
    assert [*differences((first, second), asked)] == [
        ("transformer.layers.0.mlp.proj", "w4a8_awq", "none"),
        ("transformer.layers.1.attention.dense", "none", "fp8"),
    ]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (None, "quant_cfg.json: missing, and config.json says MIXED_PRECISION"),
        (
            {"transformer.layers.2.attention.qkv": {"quant_algo": "FP8"}},
            "no linear transformer.layers.2.attention",
        ),
        ({QKV: {"quant_algo": "NVFP4"}}, f"{QKV}: quant_algo 'NVFP4' is not built"),
    ],
)
def test_mixed_precision_that_cannot_be_read_is_refused(
    tmp_path: Path, layers: dict[str, Any] | None, said: str
):
    if layers is not None:
        (tmp_path / "quant_cfg.json").write_text(json.dumps({"quantized_layers": layers}))
    with pytest.raises(SourceError, match=said):
        linears_of({"quant_algo": "MIXED_PRECISION"}, 2, tmp_path)


def test_the_cache_is_eight_bits_where_the_checkpoint_says_so():
    assert [kv_cache_of({"kv_cache_quant_algo": each}) for each in (None, "FP8", "INT8")] == [
        "auto",
        "fp8",
        "int8",
    ]
    with pytest.raises(
        SourceError, match="kv_cache_quant_algo 'NVFP4' is not built by backend aoti; have FP8, INT8"
    ):
        kv_cache_of({"kv_cache_quant_algo": "NVFP4"})
