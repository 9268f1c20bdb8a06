"""Mixtral: Llama's attention, and experts that TensorRT-LLM stacks.

Naming trap: their `mlp.fc` holds `w3` (up) before `w1` (gate), the other way round than a dense model's `fc`
and `gate`. The router is float32 there, because a rounded logit can choose another expert. Both are so in
`tensorrt_llm/layers/moe.py` of 0.16 and of the 1.0 era, as is how ranks share experts.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoint.families import llama
from pipeline.checkpoint.modules import Family, Linear, Module, Older, Part, Whole
from pipeline.models.shape import ModelShape

RENORMALIZE, AS_THEY_COME = 1, 0
"""TensorRT-LLM's `ExpertScaleNormalizationMode`: weights of the chosen experts add up to one, or do not."""

NAMES = ("w3", "w1", "w2")
"""An expert's projections up, gate and down."""


def attention(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer before its experts: Llama's."""
    return tuple(module for module in llama.layer(shape) if not module.local.startswith("mlp."))


def experts(shape: ModelShape, block: str, names: tuple[str, str, str]) -> tuple[Module, ...]:
    """Lists router and stacks; `block` is the source module, `names` the projections up, gate and down."""
    assert shape.experts is not None
    hidden, inner, count = shape.hidden_size, shape.experts.intermediate_size, shape.experts.count
    up, gate, down = (f"{block}.experts.{{}}.{name}" for name in names)
    # Up first: the fused kernel computes silu(second half) * first half.
    fc = (Part(up, inner, inner), Part(gate, inner, inner))
    proj = (Part(down, hidden, hidden),)
    return (
        Whole("mlp.router", f"{block}.gate", (count, hidden), widened=True),
        Linear("mlp.fc", "column", fc, hidden, experts=count),
        Linear("mlp.proj", "row", proj, inner, experts=count),
    )


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer."""
    return (*attention(shape), *experts(shape, "block_sparse_moe", NAMES))


def moe(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's MoeConfig is made of; an unknown key in it would be refused there."""
    assert shape.experts is not None
    return {
        "num_experts": shape.experts.count,
        "top_k": shape.experts.per_token,
        "normalization_mode": RENORMALIZE if shape.experts.normalized else AS_THEY_COME,
    }


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's LLaMAConfig adds; its experts name their gated activation `swiglu`."""
    return {**llama.config(shape), "hidden_act": "swiglu", "moe": moe(shape)}


def flat(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes a `config.json` into that of 0.10 and earlier, whose LLaMA has a field for each number.

    `moe_tp_mode` says how ranks share the experts: each holds some of them (1), or a part of all (2). Modules
    that no format touches are named by a part of their names, without patterns.
    """
    moe, ep = config["moe"], config["mapping"]["moe_ep_size"]
    rest = {name: value for name, value in config.items() if name != "moe"}
    block = dict(config["quantization"])
    if "exclude_modules" in block:
        block["exclude_modules"] = [name.strip("*") for name in block["exclude_modules"]]
    return {
        **rest,
        "quantization": block,
        "moe_num_experts": moe["num_experts"],
        "moe_top_k": moe["top_k"],
        "moe_normalization_mode": moe["normalization_mode"],
        # 0.10 has no mixed mode: experts are divided whole (1) or each by its channels (2).
        "moe_tp_mode": 1 if ep > 1 else 2,
    }


FAMILY = Family(
    ("MixtralForCausalLM",),
    "llama",
    layer,
    llama.SHARED[:1],
    config,
    left_in_source=("*router",),
    older=(Older("0.10", config=flat),),
)
