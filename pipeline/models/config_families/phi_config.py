"""Phi-3, and what shares its architecture: Llama's computation, from fused projections."""

from collections.abc import Mapping
from typing import Any

from pipeline.models import config_fields, rotary
from pipeline.models.config_fields import Config, ConfigClass
from pipeline.models.model_json import shortened
from pipeline.models.rotary import ORIGINAL, Rotary
from pipeline.models.shape import ModelShape

KNOWN = ConfigClass(
    "phi3",
    {
        "hidden_act": "silu",
        "head_dim": None,
        "num_key_value_heads": None,
        "max_position_embeddings": 4096,
        ORIGINAL: 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": None,
        "pad_token_id": 32000,
    },
    null=("num_key_value_heads", "sliding_window"),
)
ARCHITECTURES = {"Phi3ForCausalLM": KNOWN}

LONGROPE = ("longrope", "yarn", "su")
"""Names of the scaling with a factor per channel; the others are those of the first Phi-3 checkpoints."""


def read(document: Mapping[str, Any]) -> ModelShape:
    """Reads the shape."""
    config = config_fields.opened(document, KNOWN)
    config.require("hidden_act", "silu")
    original, window = config.whole(ORIGINAL), config.maybe_whole("sliding_window")
    decoder = config_fields.decoder(config)
    blocks = rotary.blocks(config)
    theta, scaling = rotary.one_of(
        config, {name: _read_rope(config, name, block, decoder, original) for name, block in blocks.items()}
    )
    config.settle()
    return ModelShape(
        **decoder,
        hidden_act="silu",
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=False,
        qk_norm=False,
        windows=(window,) * decoder["num_layers"],
        fused_source=True,
    )


def _read_rope(
    config: Config, name: str, block: Mapping[str, Any], decoder: Mapping[str, Any], original: int
) -> Rotary:
    """Reads theta and scaling of a block; the architecture knows `longrope` and no other."""
    rotary.require_whole(config, name, block)
    # require_whole takes a null for left out; here it is not
    if block.get("partial_rotary_factor", config.given.get("partial_rotary_factor", 1)) is None:
        config.refuse("partial_rotary_factor is null; give it a value or leave it out")
    theta, rope_type = rotary.theta(config, name, block), rotary.kind(config, name, block, LONGROPE)
    if rope_type == "default":
        return theta, None
    if rope_type not in LONGROPE:
        config.refuse(
            f"{name}: rope_type {shortened(rope_type)} is not supported for Phi-3; "
            "supported: default, longrope"
        )
        return theta, None
    if rope_type == "su" and block.get(ORIGINAL) != original:
        config.refuse(
            f"{name}.{ORIGINAL} is {shortened(block.get(ORIGINAL))}; with rope_type 'su' transformers needs "
            f"it there, and it must be the {original} that stands beside the block"
        )
    else:
        rotary.require_equal(config, (ORIGINAL, original), (f"{name}.{ORIGINAL}", block.get(ORIGINAL)))
    _require_default_factors(config, name, block, decoder["max_position_embeddings"] / original)
    # Rotary embeddings turn channels in pairs, so there is one factor per pair.
    pairs = decoder["head_dim"] // 2
    short, long = (_read_factors(config, name, block, key, pairs) for key in ("short_factor", "long_factor"))
    return theta, {"rope_type": "longrope", "short_factor": short, "long_factor": long, ORIGINAL: original}


def _require_default_factors(config: Config, name: str, block: Mapping[str, Any], usual: float) -> None:
    """Refuses factors that TensorRT-LLM cannot be told."""
    if block.get("attention_factor") is None and block.get("factor") in (None, usual):
        return
    config.refuse(
        f"{name}: longrope with factor {shortened(block.get('factor'))}, attention_factor "
        f"{shortened(block.get('attention_factor'))} is not supported; TensorRT-LLM takes {usual:g} "
        f"= max_position_embeddings / {ORIGINAL}, and the attention factor of that"
    )


def _read_factors(config: Config, name: str, block: Mapping[str, Any], key: str, pairs: int) -> list[float]:
    """Reads one factor per pair of a head's channels."""
    factors = block.get(key)
    if not isinstance(factors, list) or len(factors) != pairs:
        stated = f"{len(factors)} factors" if isinstance(factors, list) else shortened(factors)
        config.refuse(f"{name}.{key} is {stated}; it must be a list of {pairs}")
        return []
    return [config_fields.number(config, f"{name}.{key}", factor) for factor in factors]
