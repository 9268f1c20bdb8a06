"""Checkpoints made from a plan: every tensor the model must have, with known bytes, and no tensor library."""

import json
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.layout_checks import linears
from pipeline.checkpoint.slicing import plan
from pipeline.checkpoint.tensor_parts import Largest, LocalTensor, PlusOne, Slice
from pipeline.models.config_json import read_shape
from pipeline.weights.tensor_writer import TensorPlan, write_safetensors
from pipeline.weights.tensors import NUMPY_TYPES
from recipes.formats import Format
from recipes.precision import Precision

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}


def source_slices(tensors: list[LocalTensor]) -> dict[str, Slice]:
    """The source tensors that a plan of one rank names; each once."""
    parts = [part for tensor in tensors for part in (*tensor.parts, *tensor.equal)]
    slices = [part for part in parts if isinstance(part, Slice)]
    slices += [each for part in parts if isinstance(part, Largest) for each in part.sources]
    slices += [part.source for part in parts if isinstance(part, PlusOne)]
    return {each.source: each for each in slices}


def content(each: Slice) -> np.ndarray:
    """Bytes that depend on the name; scales are positive, and equal in modules that share them."""
    layer, _, kind = each.source.removeprefix("model.layers.").partition(".")
    if "_scale" in kind:
        group = "mlp_in" if "gate_proj" in kind or "up_proj" in kind else kind.split(".")[0]
        shared = "o" if "o_proj" in kind or "down_proj" in kind else group
        seed = f"{layer} {shared} {kind.rpartition('.')[2]} {each.shape}"
    else:
        seed = each.source
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    if "_scale" in kind:
        floats = rng.uniform(0.5, 2, each.shape).astype(np.float32)
        return (floats.view(np.uint32) >> 16).astype(np.uint16) if each.dtype == "BF16" else floats
    kind_of = np.dtype(NUMPY_TYPES[each.dtype])
    made: np.ndarray = rng.integers(0, 256, (*each.shape, kind_of.itemsize), np.uint8).view(kind_of)[..., 0]
    return made & FINITE if each.source.endswith("norm.weight") and each.dtype == "BF16" else made


FINITE = 0x3FFF
"""Bits of bfloat16 numbers below 2."""

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


def quantization_config(precision: Precision, kv_cache: str, names: list[str]) -> dict[str, Any]:
    """What ModelOpt's Hugging Face export says in config.json, as far as it is read."""
    algorithms = {name: algorithm for name in names if (algorithm := stated_algorithm(precision.of(name)))}
    block: dict[str, Any] = {"quant_method": "modelopt", "ignore": []}
    if kv_cache != "auto":
        fp8 = {"dynamic": False, "num_bits": 8, "type": "float"}
        block["kv_cache_scheme"] = fp8 if kv_cache == "fp8" else "INT8"
    if len(set(algorithms.values())) > 1:
        block["quant_algo"] = "MIXED_PRECISION"
        block["quantized_layers"] = {name: {"quant_algo": each} for name, each in algorithms.items()}
    elif algorithms:
        block["quant_algo"] = next(iter(algorithms.values()))
        block["ignore"] = ["lm_head", *(name for name in names if name not in algorithms)]
    return {"quantization_config": block} if algorithms or kv_cache != "auto" else {}


def stated_algorithm(fmt: Format) -> str:
    """ModelOpt says the same of all int4 blocks whose inputs stay as they are."""
    return "W4A16_AWQ" if fmt.name == "int4_wo" else fmt.quant_algo


@pytest.fixture
def config() -> dict[str, Any]:
    """The `config.json` of a small Llama whose key heads are fewer than the ranks of some layouts."""
    return dict(CONFIG)


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a checkpoint of a format into a new directory."""

    def make(
        fmt: str | dict[str, Any] = "none",
        config: Mapping[str, Any] = CONFIG,
        change: Callable[..., Any] | None = None,
        kv_cache: str = "auto",
    ) -> Path:
        directory = tmp_path / f"checkpoint{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        precision = Precision.parse(fmt)
        block = quantization_config(precision, kv_cache, linears(read_shape(config)))
        (directory / "config.json").write_text(json.dumps({**config, **block}))
        (directory / "tokenizer.json").write_text("{}")
        slices = source_slices(plan(read_shape(config), precision, 1, 1, kv_cache)[0])
        tensors = {name: (each.dtype, content(each)) for name, each in slices.items()}
        if change is not None:
            change(tensors)
        write_safetensors(
            directory / "model.safetensors",
            [
                TensorPlan(name, dtype, array.shape, partial(list, [array]))
                for name, (dtype, array) in tensors.items()
            ],
        )
        return directory

    return make
