"""Mixtral and Qwen2-MoE: Llama's decoder with a mixture of experts in the place of every layer's MLP."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.models import config_fields
from pipeline.models.config_families import llama_config
from pipeline.models.config_fields import Config, ConfigClass
from pipeline.models.shape import Experts, ModelShape

MOST_EXPERTS = 1 << 14
"""Experts of all layers together, at most: each has names and tensors of its own."""

NEED_HEAD_DIM = ("yarn", "dynamic")
"""Scalings that transformers 5.14 cannot compute for a Mixtral that leaves `head_dim` to it."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an architecture fixes beyond its `config.json`, and how it calls the sizes of its experts."""

    known: ConfigClass
    count: tuple[str, ...]
    """Names of the field with the number of experts, the one that wins first."""
    intermediate_size: str
    """Field with the inner channels of one expert."""
    qkv_bias: bool
    shared: bool
    """Besides the chosen experts there is one for every token, behind a gate of its own."""


ARCHITECTURES = {
    "MixtralForCausalLM": Architecture(
        ConfigClass(
            "mixtral",
            llama_config.COMMON
            | {
                "max_position_embeddings": 131072,
                "num_key_value_heads": 8,
                "rms_norm_eps": 1e-5,
                "sliding_window": None,
                "num_experts_per_tok": 2,
            },
            null=("head_dim", "sliding_window"),
            theta=1e6,
        ),
        count=("num_experts", "num_local_experts"),
        intermediate_size="intermediate_size",
        qkv_bias=False,
        shared=False,
    ),
    "Qwen2MoeForCausalLM": Architecture(
        ConfigClass(
            "qwen2_moe",
            llama_config.COMMON
            | llama_config.SWITCHED
            | {
                "max_position_embeddings": 32768,
                "num_key_value_heads": 16,
                "num_experts_per_tok": 4,
                "norm_topk_prob": False,
                "mlp_only_layers": None,
                "decoder_sparse_step": 1,
                "qkv_bias": True,
            },
            null=("sliding_window", "layer_types", "mlp_only_layers"),
        ),
        count=("num_experts",),
        intermediate_size="moe_intermediate_size",
        qkv_bias=True,
        shared=True,
    ),
}


def read(document: Mapping[str, Any]) -> ModelShape:
    """Reads the shape; a model with a dense MLP in some layers is a SourceError."""
    kin = ARCHITECTURES[document["architectures"][0]]
    config = config_fields.opened(document, kin.known)
    if kin.known.model_type == "qwen2_moe":
        _require_equal_layers(config)
    # before `shape`, which settles: problems of the experts are in the same message
    experts = _read_experts(config, kin)
    dense = llama_config.shape(config, qkv_bias=kin.qkv_bias, qk_norm=False, inner=kin.intermediate_size)
    scaling = (dense.rope_scaling or {}).get("rope_type")
    # the length of a head is computed here either way, but transformers would fail as it loads
    if scaling in NEED_HEAD_DIM and kin.known.model_type == "mixtral" and config.value("head_dim") is None:
        config.refuse(f"rope_type {scaling!r} of a Mixtral needs head_dim; set it to {dense.head_dim}")
    # Each number alone may be allowed; their product is the number of tensor names that a plan builds.
    if dense.num_layers * experts.count > MOST_EXPERTS:
        config.refuse(
            f"num_hidden_layers {dense.num_layers} of {experts.count} experts each; "
            f"at most {MOST_EXPERTS} experts are read in all"
        )
    config.settle()
    return replace(dense, experts=experts)


def _read_experts(config: Config, kin: Architecture) -> Experts:
    # where neither is given, the last is the one that a message calls missing
    name = next((name for name in kin.count if name in config.given), kin.count[-1])
    count, chosen = config.whole(name), config.whole("num_experts_per_tok")
    if chosen > count and not config.problems:  # each is right by itself
        config.refuse(f"num_experts_per_tok {chosen} is more than {name} {count}; get the file again")
    return Experts(
        count=count,
        per_token=chosen,
        intermediate_size=config.whole(kin.intermediate_size),
        shared_intermediate_size=config.whole("shared_expert_intermediate_size") if kin.shared else 0,
        # Mixtral has no such field: it always divides by the sum
        normalized=config.switch("norm_topk_prob") if kin.shared else True,
    )


def _require_equal_layers(config: Config) -> None:
    """Refuses layers of Qwen2-MoE that differ: neither TensorRT-LLM's layer nor ours mixes them."""
    if config.value("mlp_only_layers") is not None:
        config.require("mlp_only_layers", [])
    config.require("decoder_sparse_step", 1)
    config.require("qkv_bias", True)  # noqa: FBT003 the allowed value
    config.require("use_sliding_window", False)  # noqa: FBT003 the allowed value
