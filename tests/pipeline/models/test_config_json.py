"""Every field that we read of a config.json, against the model that the pinned transformers builds of it.

The table of fields is what the reader reads, so a field read in future is tested by itself. Where transformers
builds a model, our shape equals it, or our refusal is one of DEVIATIONS; where it raises, we refuse.
"""

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from calibration.model.checkpoint_reader import Source
from calibration.model.linears import attention, is_tied, layout
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape, readers
from tests.pipeline.models.config_witness import Recording, bare, built

pytestmark = pytest.mark.slow

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
KINDS = ["sliding_attention", "full_attention"]

BLOCKS = [
    {}, [], "yarn", YARN, LLAMA_3, LONG,
    {"rope_type": "default", "rope_theta": 50000.0}, {"type": "default"}, {"rope_theta": None},
    {"rope_type": "linear", "factor": 2}, {"type": "linear", "factor": 2.0, "rope_theta": 7000},
    {"type": "linear", "rope_type": "default", "factor": 2.0}, {"rope_type": None, "factor": 2.0},
    {"type": "dynamic", "factor": 2.0, "unheard_of": 1}, {"rope_type": "linear"}, {"rope_type": "mrope"},
    LLAMA_3 | {"original_max_position_embeddings": 64}, LLAMA_3 | {"original_max_position_embeddings": None},
    {"rope_type": "llama3", "factor": 8.0}, YARN | {"attention_factor": 1.5, "beta_fast": 16, "truncate": False},
    {"type": "yarn", "factor": 2.0}, YARN | {"original_max_position_embeddings": None},
    {"rope_type": "default", "partial_rotary_factor": 0.5}, YARN | {"partial_rotary_factor": None},
    LONG | {"original_max_position_embeddings": 2048}, LONG | {"factor": 3.0}, LONG | {"type": "su"},
    {"type": "su", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4},
    {"type": "su", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "original_max_position_embeddings": 4096},
    {"type": "yarn", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}, LONG | {"short_factor": [1.0] * 3},
    {"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}},
    {"full_attention": {"type": "linear", "factor": 2.0}, "sliding_attention": None},
    {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "linear", "factor": 2.0}},
    {"full_attention": None, "rope_type": "default", "rope_theta": None},
]  # fmt: skip
"""Rotary blocks, under either name."""

VALUES: dict[str, list[Any]] = {
    "architectures": [[], ["LlamaForCausalLM", "MistralForCausalLM"], "LlamaForCausalLM", [["LlamaForCausalLM"]]],
    "model_type": ["llama", "qwen2", "bert", "no such", 1],
    "per_layer_config": [{"0": {"num_key_value_heads": 2}}],
    "dtype": ["float16", "float64", "half", "bf16", "torch.bfloat16", "", 16],
    "torch_dtype": ["float16", "float64"],
    "hidden_size": [512], "num_hidden_layers": [2], "num_attention_heads": [16, 24], "intermediate_size": [64],
    "vocab_size": [320], "pad_token_id": [0, 159, 160, -1, -160, -161], "num_key_value_heads": [2, 5, 32], "head_dim": [16], "max_position_embeddings": [512],
    "original_max_position_embeddings": [512], "sliding_window": [16], "max_window_layers": [0, 3],
    "use_sliding_window": [], "tie_word_embeddings": [], "attention_bias": [], "mlp_bias": [], "qkv_bias": [],
    "rms_norm_eps": [1e-5, 1], "hidden_act": ["gelu"], "hidden_activation": ["gelu", "gelu_pytorch_tanh"],
    "layer_types": [
        [], KINDS, KINDS * 3, ["full_attention"] * 6, ["chunked_attention"] * 6, KINDS[::-1] + KINDS[:1] * 4,
        (KINDS[:1] * 2 + KINDS[1:]) * 2,
    ],
    "query_pre_attn_scalar": [64], "use_bidirectional_attention": [],
    "attn_logit_softcapping": [20.0, 20], "final_logit_softcapping": [20.0, 20],
    "sliding_window_pattern": [2, 3, 0],
    "rope_theta": [5e5, 20000], "rope_local_base_freq": [500.0], "partial_rotary_factor": [0.5, 1.0],
    "rope_scaling": BLOCKS, "rope_parameters": BLOCKS,
    "num_local_experts": [2], "num_experts": [5], "num_experts_per_tok": [1, 3],
    "moe_intermediate_size": [16], "shared_expert_intermediate_size": [16], "norm_topk_prob": [],
    "decoder_sparse_step": [2], "mlp_only_layers": [[0]],
}  # fmt: skip
"""Field -> values to try besides none, null, and its own in other types."""

OTHER_TYPES = {
    int: lambda value: [str(value), float(value), True, [value], {}],
    bool: lambda value: [not value, int(value), "no"],
    float: lambda value: [str(value), True, [value]],
    str: lambda value: [1, [value]],
}

TOGETHER: list[dict[str, Any]] = [
    {"use_sliding_window": True, "max_window_layers": 3},
    {"use_sliding_window": True, "sliding_window": None},
    {"use_sliding_window": True, "layer_types": KINDS * 3},
    {"num_experts": 5, "num_local_experts": 2},
    {"dtype": None, "torch_dtype": "float16"}, {"dtype": "float32", "torch_dtype": "float16"},
    {"rope_scaling": YARN, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
    {"rope_scaling": YARN, "rope_parameters": YARN}, {"rope_scaling": YARN, "rope_theta": 50000.0},
    {"rope_scaling": {}, "rope_parameters": YARN},
    {"rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"}, "rope_theta": 60000.0},
    {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}, "partial_rotary_factor": 0.5},
    {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_parameters": {"full_attention": YARN}},
    {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 2e6, "rope_local_base_freq": 7e3},
    {"rope_scaling": {}, "rope_parameters": {"sliding_attention": {"rope_theta": 700.0}}},
    {"layer_types": KINDS * 3, "sliding_window": None}, {"layer_types": KINDS * 3, "sliding_window_pattern": 3},
    {"hidden_size": 272, "head_dim": 8, "num_attention_heads": 32},
    {"hidden_size": 260, "head_dim": 8}, {"hidden_size": 260},
]  # fmt: skip
"""Fields whose readings depend on one another."""

DEVIATIONS = {
    r"architectures is ": "the class decides which tensors there are, and it is not guessed",
    r"model_type is .*, which for": "architectures and model_type name two models",
    r"dtype is ": "the type of the weights is neither guessed nor one that is not computed with",
    r"(_size|_heads|_layers|_experts) is missing": "a size that shapes tensors is not guessed",
    r" is not supported for \w+; supported: ": "no part of the program computes it",
    r"partial_rotary_factor .* is not supported": "no part of the program rotates a part of each head",
    r"rope_type '\w+' is not supported": "no part of the program computes it",
    r"rope_type is null": "AutoConfig takes it, no model can be built",
    r"longrope with factor": "TensorRT-LLM cannot be told another factor",
    r"disagree": "whoever wrote the second block did not mean the first to be dropped",
    r"call it rope_type": "transformers drops the scaling without a word",
    r"has one block for all layers": "transformers drops the blocks without a word",
    r"beside the blocks of": "transformers drops it without a word",
    r"as Ministral": "Ministral is another architecture",
    r"does not divide num_attention_heads": "heads would be left over",
    r"layer_types names": "no part of the program computes such layers",
    r"layer_types has full_attention in layers": "TensorRT-LLM says windows by a period",
    r"layer_types has sliding_attention, but|sliding_window is null, but": "the model raises when it is run",
    r"is no multiple of num_attention_heads .*; set head_dim": "heads would be left over",
    r"must be true or false|is true; it must|must be null or an object": "a value of another type",
}
"""What our refusals say of what transformers accepts, and why we refuse it."""


def fields_of(architecture, directory):
    """The fields that are read, and the full configuration that transformers writes for the bare one."""
    config = bare(architecture)
    (directory / "config.json").write_text(json.dumps(config))
    written = json.loads(AutoConfig.from_pretrained(directory).to_json_string(use_diff=False))
    read = set()
    for given in (config, written, *(config | together for together in TOGETHER)):
        recording = Recording(given)
        with suppress(SourceError):
            read_shape(recording)
        read |= recording.read
    return read, {key: value for key, value in written.items() if key in read} | config


def variations(architecture: str, directory: Path):
    """Yields every configuration to compare, and what it differs in from the bare or the full one."""
    read, full = fields_of(architecture, directory)
    yield from (("full", full), ("bare", bare(architecture)))
    for key in sorted(read):
        others = OTHER_TYPES.get(type(full.get(key)), lambda value: [])(full.get(key))
        yield f"full without {key}", {name: value for name, value in full.items() if name != key}
        yield f"full with {key} null", full | {key: None}
        for change in ({key: value} for value in [None, *VALUES[key], *others]):
            yield f"bare with {change}", bare(architecture) | change
    for together in TOGETHER:
        yield f"bare with {together}", bare(architecture) | together


@pytest.fixture(scope="module")
def used():
    """The deviations met so far; once every architecture was compared, none may be left over."""
    found: set[Any] = set()
    compared: list[str] = []
    yield found, compared
    if sorted(compared) == sorted(readers()):
        assert found == DEVIATIONS.keys()


@pytest.mark.parametrize("architecture", readers())
def test_a_config_is_read_as_transformers_builds_it(architecture: str, tmp_path: Path, used):
    wrong = []
    used[1].append(architecture)
    for label, config in variations(architecture, tmp_path):
        ours, theirs = outcome(read_shape, config), outcome(built, config, tmp_path)
        if isinstance(ours, SourceError) and not isinstance(theirs, Exception):
            used[0].update(deviations(ours))
        if problem := difference(ours, theirs) or calibrated(ours, config):
            wrong.append(f"{label}: {problem}")
    assert not wrong, "\n".join(wrong)


def outcome(read, *arguments):
    """What is read, or the exception."""
    try:
        return read(*arguments)
    except Exception as exc:  # noqa: BLE001 transformers raises whatever it meets first
        return exc


def deviations(refusal: SourceError):
    """Which of the deviations a refusal is."""
    return {each for each in DEVIATIONS if re.search(each, str(refusal))}


def calibrated(shape, config) -> str:
    """What calibration, which cannot be given a shape, reads otherwise of the same file."""
    if isinstance(shape, Exception):
        return ""
    names, experts = layout(config), shape.experts
    found = {
        "layers": (names.num_layers, shape.num_layers),
        "experts": (names.num_experts, experts.count if experts else 0),
        "tied": (is_tied(config), shape.tie_word_embeddings),
        "kernel": (attention(config), "sdpa" if shape.attention_softcap is None else "eager"),
        "dtype": (str(Source(Path(), config, {}).dtype), f"torch.{shape.dtype}"),
    }
    return ", ".join(
        f"calibration's {name} {one}, ours {two}" for name, (one, two) in found.items() if one != two
    )


def difference(ours, theirs) -> str:
    """What is wrong with our reading; empty where nothing is."""
    if isinstance(ours, Exception):
        if not isinstance(ours, SourceError):
            return f"not refused but {ours!r}"
        return (
            ""
            if isinstance(theirs, Exception) or deviations(ours)
            else f"refused ({ours}), read there: {theirs}"
        )
    if isinstance(theirs, Exception):
        return f"read, there {type(theirs).__name__} {str(theirs)[:200]}"
    mine = dataclasses.asdict(ours)
    mine["query_scale"] = mine["query_scale"] or mine["head_dim"] ** -0.5
    return ", ".join(
        f"{name} {mine[name]!r}, there {value!r}" for name, value in theirs.items() if mine[name] != value
    )
