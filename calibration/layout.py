"""Names of a quantized checkpoint: fused groups, tensors, files and quantization blocks; pure.

The layout is what ModelOpt 0.47's `export_hf_checkpoint` writes for the Llama family.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.formats import Format

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose layers look as GROUPS says."""

GROUPS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj"), "input_layernorm"),
    ("mlp", ("gate_proj", "up_proj"), "post_attention_layernorm"),
)
"""Linears that runtimes fuse because they read the same norm's output: block, linears, norm."""

NOT_WRITTEN = (
    ("*.rotary_emb.inv_freq", "a constant that every runtime computes from config.json"),
    ("*.self_attn.rotary_emb.inv_freq", "a constant that every runtime computes from config.json"),
)
"""Source tensors that no model parameter takes, by pattern, and why they may be left out."""

TIED_HEAD = "lm_head.weight"
COPIED_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files taken over from the source checkpoint unchanged, where it has them."""


@dataclass(frozen=True, slots=True)
class Group:
    """Linears of one layer that share their input, and the norm that makes it."""

    linears: tuple[str, ...]
    norm: str
    """Name of the norm module."""


def groups(num_layers: int) -> tuple[Group, ...]:
    """Fused groups of all layers, in order."""
    return tuple(
        Group(
            tuple(f"model.layers.{layer}.{block}.{name}" for name in names),
            f"model.layers.{layer}.{norm}",
        )
        for layer in range(num_layers)
        for block, names, norm in GROUPS
    )


def excluded(module: str, quant_cfg: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a preset's rules, of which the last match counts, leave a linear's weight alone."""
    enabled = False
    for rule in quant_cfg:
        if "parent_class" not in rule and fnmatch.fnmatch(
            f"{module}.weight_quantizer", rule["quantizer_name"]
        ):
            enabled = rule.get("enable", True)
    return not enabled


def may_be_left_out(name: str, *, tied: bool) -> str:
    """Why a source tensor that no parameter takes may be left out; empty when it may not."""
    if tied and name == TIED_HEAD:
        return "tied to the embedding, which is written"
    return next((why for pattern, why in NOT_WRITTEN if fnmatch.fnmatch(name, pattern)), "")


def quantization_block(fmt: Format, modelopt_version: str, left: Sequence[str]) -> dict[str, Any]:
    """Contents of hf_quant_config.json; `left` names the modules that stay in the source dtype."""
    block: dict[str, Any] = {"quant_algo": fmt.quant_algo, "kv_cache_quant_algo": None}
    if fmt.block_size:
        block |= {"group_size": fmt.block_size, "has_zero_point": False, "pre_quant_scale": fmt.smoothed}
    block["exclude_modules"] = sorted(left)
    return {"producer": {"name": "modelopt", "version": modelopt_version}, "quantization": block}


def config_block(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """The block `quantization_config` of config.json for the contents of hf_quant_config.json."""
    details = quantization["quantization"]
    block: dict[str, Any] = {}
    if details["quant_algo"] == "FP8":
        kind = {"dynamic": False, "num_bits": 8, "type": "float"}
        block["config_groups"] = {
            "group_0": {"input_activations": kind, "weights": dict(kind), "targets": ["Linear"]}
        }
    return block | {
        "ignore": list(details["exclude_modules"]),
        "quant_algo": details["quant_algo"],
        "producer": quantization["producer"],
        "quant_method": "modelopt",
    }
