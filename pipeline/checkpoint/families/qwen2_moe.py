"""Qwen2-MoE: Qwen2's attention, Mixtral's stacks, and an expert for every token behind a gate of its own.

The shared expert is an MLP whose `fc` holds up before gate. It is a part of `mlp` since TensorRT-LLM 0.16
(`SharedMoE` in layers/moe.py), and stood beside it up to 0.15 (models/qwen/model.py).
"""

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoint.families import mixtral, qwen
from pipeline.checkpoint.modules import Family, Linear, Module, Older, Part, Whole
from pipeline.models.shape import ModelShape

NAMES = ("up_proj", "gate_proj", "down_proj")
"""An expert's projections up, gate and down."""

SHARED = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("mlp.shared_expert.up_proj", "mlp.shared_expert.gate_proj"),
)


def layer(shape: ModelShape) -> tuple[Module, ...]:
    """Lists the modules of a decoder layer."""
    stacks = mixtral.experts(shape, "mlp", NAMES)
    return (*mixtral.attention(shape), *stacks, *_shared_expert(shape))


def _shared_expert(shape: ModelShape) -> tuple[Module, ...]:
    assert shape.experts is not None
    hidden, inner = shape.hidden_size, shape.experts.shared_intermediate_size
    fc = tuple(Part(f"mlp.shared_expert.{name}", inner, inner) for name in NAMES[:2])
    proj = (Part("mlp.shared_expert.down_proj", hidden, hidden),)
    return (
        Linear("mlp.shared_expert.fc", "column", fc, hidden),
        Linear("mlp.shared_expert.proj", "row", proj, inner),
        Whole("mlp.shared_expert_gate", "mlp.shared_expert_gate", (1, hidden)),
    )


def config(shape: ModelShape) -> Mapping[str, Any]:
    """Returns what TensorRT-LLM's QWenConfig adds.

    Its own converter writes the same normalization for every model, whatever `norm_topk_prob` says.
    """
    assert shape.experts is not None
    return {
        **qwen.config(shape),
        "hidden_act": "swiglu",
        "moe": mixtral.moe(shape),
        "moe_intermediate_size": shape.experts.intermediate_size,
        "moe_shared_expert_intermediate_size": shape.experts.shared_intermediate_size,
    }


FAMILY = Family(
    ("Qwen2MoeForCausalLM",),
    "qwen",
    layer,
    SHARED,
    config,
    # With and without `.weight`: some places match modules, others tensors.
    left_in_source=("*router", "*shared_expert_gate*"),
    older=(Older("0.15", moved=("mlp.shared_expert", "shared_expert")),),
)
