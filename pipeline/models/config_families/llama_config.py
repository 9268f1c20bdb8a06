"""Llama, Mistral, Qwen2 and Qwen3: RMS norms, gated SiLU, rotary embeddings over whole heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.models import config_fields
from pipeline.models.config_fields import WHOLE, WINDOWED, Config, ConfigClass
from pipeline.models.rotary import rope
from pipeline.models.shape import ModelShape

COMMON = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu", "head_dim": None}

SWITCHED = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
"""Windows of Qwen, behind a switch."""

FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Fields with the one value that is followed, of the classes that have them; others do not read them."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an architecture fixes beyond its `config.json`."""

    known: ConfigClass
    qkv_bias: bool = False
    qk_norm: bool = False


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(
        ConfigClass(
            "llama",
            COMMON
            | {
                "max_position_embeddings": 2048,
                "num_key_value_heads": None,
                "attention_bias": False,
                "mlp_bias": False,
            },
            null=("num_key_value_heads", "head_dim"),
            equal_heads=True,
        )
    ),
    "MistralForCausalLM": Architecture(
        ConfigClass(
            "mistral",
            COMMON | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
            null=("head_dim", "sliding_window"),
        )
    ),
    "Qwen2ForCausalLM": Architecture(
        ConfigClass(
            "qwen2",
            COMMON | SWITCHED | {"max_position_embeddings": 32768, "num_key_value_heads": 32},
            null=("num_key_value_heads", "sliding_window", "layer_types"),
        ),
        qkv_bias=True,
    ),
    "Qwen3ForCausalLM": Architecture(
        ConfigClass(
            "qwen3",
            COMMON
            | SWITCHED
            | {
                "max_position_embeddings": 32768,
                "num_key_value_heads": 32,
                "head_dim": 128,
                "attention_bias": False,
            },
            null=("num_key_value_heads", "sliding_window", "layer_types"),
        ),
        qk_norm=True,
    ),
}


def read(document: Mapping[str, Any]) -> ModelShape:
    """Reads the shape."""
    kin = ARCHITECTURES[document["architectures"][0]]
    config = config_fields.opened(document, kin.known)
    # even null: the presence of the field is what decides
    if kin.known.model_type == "mistral" and "layer_types" in document:
        config.refuse("layer_types makes transformers read a Mistral as Ministral, which is not supported")
    return shape(config, qkv_bias=kin.qkv_bias, qk_norm=kin.qk_norm)


def shape(config: Config, *, qkv_bias: bool, qk_norm: bool, inner: str = "intermediate_size") -> ModelShape:
    """Reads the shape of a decoder like Llama's."""
    for key, allowed in FIXED.items():
        # `defaults` names the fields of the class: one without the field does not read it
        if key in config.known.defaults:
            config.require(key, allowed)
    decoder = config_fields.decoder(config, inner)
    theta, scaling = rope(config)
    windows = _read_windows(config, decoder["num_layers"])
    config.settle()
    return ModelShape(
        **decoder,
        hidden_act="silu",
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        windows=windows,
    )


def _read_windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """Returns the window of each layer; Qwen has them behind a switch, from a layer on or where it says."""
    defaults = config.known.defaults
    if "sliding_window" not in defaults:
        return (None,) * layers
    if "use_sliding_window" not in defaults:
        # Mistral: no switch, one window for all layers; null is none
        return (config.maybe_whole("sliding_window"),) * layers
    window = config.maybe_whole("sliding_window") if config.switch("use_sliding_window") else None
    # Qwen's layers below this number see all positions, although the switch is on.
    first = config.whole("max_window_layers", least=0)
    usual = [WHOLE if window is None or number < first else WINDOWED for number in range(layers)]
    kinds = config_fields.layer_types(config, usual, (WHOLE, WINDOWED))
    if window is None and WINDOWED in kinds:
        config.refuse(f"layer_types has {WINDOWED}, but use_sliding_window or sliding_window allows none")
    return tuple(window if kind == WINDOWED else None for kind in kinds)
