from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
from modelopt.torch.export.quant_utils import process_layer_quant_config

from calibration.model.linears import EMBEDDING, HEAD, Layout
from calibration.quantize.quantization_config import config_block, quantization_block, summary
from recipes.formats import FORMATS, Format

QUANTIZING = [fmt for fmt in FORMATS.values() if fmt.weight != "source"]
NAMES = Layout("llama", 12).linears()


@pytest.mark.parametrize("fmt", QUANTIZING, ids=lambda fmt: fmt.name)
def test_blocks_carry_the_format_and_what_is_left_alone(fmt: Format):
    block = quantization_block("0.47.0", dict.fromkeys(NAMES, fmt), [EMBEDDING, HEAD], "auto")
    details = block["quantization"]
    assert details["quant_algo"] == {"W4A16": "W4A16_AWQ"}.get(fmt.quant_algo, fmt.quant_algo)
    assert details.get("group_size", 0) == fmt.block_size
    assert config_block(block)["ignore"] == details["exclude_modules"] == [HEAD, EMBEDDING]


def test_an_int8_cache_is_named_beside_any_format():
    block = quantization_block("0.47.0", {}, [EMBEDDING, *NAMES, HEAD], "int8")
    details: dict[str, Any] = {"quant_algo": None, "kv_cache_quant_algo": "INT8", "quantized_layers": {}}
    assert block["quantization"] == details
    assert config_block(block)["kv_cache_scheme"] == "INT8"
    assert "quant_algo" not in config_block(block)


def test_a_layer_is_named_apart_from_those_whose_number_begins_alike():
    left = [name for name in NAMES if name.startswith("model.layers.1.")]
    assert summary(left, set(NAMES) - set(left)) == ["model.layers.1.*"]


MODELOPT: dict[str, Any] = {
    **{name: name for name in ("fp8", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo")},
    "fp8_rowwise": "fp8_pc_pt",
    "int4_wo": "int4_awq",
    "none": None,
}
"""Format -> what ModelOpt's export calls it."""


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(list(FORMATS)), min_size=14, max_size=14))
def test_any_mixture_is_told_as_modelopt_tells_it(chosen):
    formats = dict(zip(Layout("llama", 2).linears(), chosen, strict=True))
    layers: dict[str, Any] = {f"{EMBEDDING}.quantization": None}
    for name, fmt in formats.items():
        layers |= {f"{name}.quantization": MODELOPT[fmt], f"{name}.awq_block_size": FORMATS[fmt].block_size}
    expected = process_layer_quant_config(layers | {f"{HEAD}.quantization": None})
    quantized = {name: FORMATS[fmt] for name, fmt in formats.items() if fmt != "none"}
    left = [EMBEDDING, *(name for name in formats if name not in quantized), HEAD]
    block = quantization_block("0.47.0", quantized, left, "auto")
    assert block["quantization"] == expected
    assert config_block(block) == convert_hf_quant_config_format(block)


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_patterns_cover_what_is_left_and_nothing_else(quantized):
    left = [EMBEDDING, *(name for name in NAMES if name not in quantized), HEAD]
    patterns = summary(left, quantized)
    assert all(any(fnmatchcase(name, p) for p in patterns) for name in left)
    assert not any(fnmatchcase(name, p) for name in quantized for p in patterns)
