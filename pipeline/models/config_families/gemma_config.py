"""Gemma 2 and the text models of Gemma 3: norms around both blocks, GELU, windows in some of the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.models import config_fields, rotary
from pipeline.models.config_fields import WHOLE, WINDOWED, Config, ConfigClass
from pipeline.models.model_json import shortened
from pipeline.models.shape import ModelShape

COMMON = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
}
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
NULL = ("sliding_window", "layer_types", "use_bidirectional_attention", *CAPS)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an architecture fixes beyond its `config.json`."""

    known: ConfigClass
    qk_norm: bool
    """Rotary bases and repeating windows come with it: Gemma 3."""


ARCHITECTURES = {
    "Gemma2ForCausalLM": Architecture(
        ConfigClass(
            "gemma2",
            COMMON
            | dict(zip(CAPS, (50.0, 30.0), strict=True))
            | {"max_position_embeddings": 8192, "use_bidirectional_attention": None},
            null=NULL,
            equal_heads=True,
        ),
        qk_norm=False,
    ),
    "Gemma3ForCausalLM": Architecture(
        ConfigClass(
            "gemma3_text",
            COMMON
            | dict.fromkeys(CAPS)
            | {
                "max_position_embeddings": 131072,
                "use_bidirectional_attention": False,
                "sliding_window_pattern": 6,
            },
            null=NULL,
            equal_heads=True,
            theta=1e6,
        ),
        qk_norm=True,
    ),
}

REFUSED = {
    "Gemma3ForConditionalGeneration": (
        "vision towers are not built; give a text-only checkpoint, with architectures Gemma3ForCausalLM"
    ),
}
"""Architectures of the family that nothing here can do -> why."""

LOCAL_THETA = 1e4
"""Rotary base of Gemma 3's layers with a window, where `config.json` is silent."""

MOST_CAP = 1e6


def read(document: Mapping[str, Any]) -> ModelShape:
    """Reads the shape."""
    kin = ARCHITECTURES[document["architectures"][0]]
    config = config_fields.opened(document, kin.known)
    _require_supported(config, kin)
    decoder = config_fields.decoder(config)
    # Gemma 2 has one base for all layers, and so one block
    theta, scaling, local = _read_rotary(config) if kin.qk_norm else (*rotary.rope(config), None)
    attention_cap, logit_cap = (
        None if config.value(name) is None else config.real(name, MOST_CAP) for name in CAPS
    )
    windows = _read_windows(config, kin, decoder["num_layers"])
    query_scale = config.whole("query_pre_attn_scalar") ** -0.5
    config.settle()
    return ModelShape(
        **decoder,
        hidden_act="gelu_tanh",
        rope_theta=theta,
        rope_scaling=scaling,
        rope_local_theta=local,
        qkv_bias=False,
        qk_norm=kin.qk_norm,
        windows=windows,
        norm_offset=True,
        sandwich_norms=True,
        # fixed by the architecture: no field of config.json says it
        embedding_scale=decoder["hidden_size"] ** 0.5,
        query_scale=query_scale,
        attention_softcap=attention_cap,
        logit_softcap=logit_cap,
    )


def _require_supported(config: Config, kin: Architecture) -> None:
    """Refuses switches that no part of the program follows."""
    config.require("attention_bias", False)  # noqa: FBT003 the allowed value
    config.require("hidden_activation", "gelu_pytorch_tanh")
    # null is the default of Gemma 2, false that of Gemma 3
    config.require("use_bidirectional_attention", False, None)  # noqa: FBT003 the allowed value
    if kin.qk_norm:  # transformers reads the field there and does not apply it
        config.require(CAPS[0], None)


def _read_rotary(config: Config) -> tuple[float, dict[str, Any] | None, float]:
    """Returns theta and scaling of Gemma 3's layers that see all positions, and theta of the others.

    `rope_parameters` has a block for each kind of layer; `rope_scaling`, of transformers 4, is put into that
    of the former.
    """
    newer, older = (config.given.get(name) for name in ("rope_parameters", "rope_scaling"))
    # both read before they are merged: a wrong type is reported whatever stands beside it
    blocks = {kind: _read_block(config, newer, kind) for kind in (WHOLE, WINDOWED)}
    whole = _merge_rope_scaling(config, newer, older, blocks[WHOLE])
    rotary.require_whole(config, f"rope_parameters.{WHOLE}", whole)
    theta = rotary.theta(config, f"rope_parameters.{WHOLE}", whole)
    windowed = (f"rope_parameters.{WINDOWED}", blocks[WINDOWED])
    local = rotary.base(config, *windowed, "rope_local_base_freq", LOCAL_THETA)
    # ModelShape holds one scaling, for the layers that see all positions.
    if (kind := rotary.kind(config, *windowed)) != "default":
        config.refuse(
            f"rope_parameters.{WINDOWED}: rope_type {shortened(kind)} is not supported; supported: default"
        )
    return (
        theta,
        rotary.scaling(config, "rope_scaling" if older else f"rope_parameters.{WHOLE}", whole),
        local,
    )


def _read_block(config: Config, newer: Any, kind: str) -> Mapping[str, Any]:
    """Reads the block of a kind of layer; what stands beside the blocks is read by nobody."""
    if newer is not None and not isinstance(newer, dict):
        config.refuse(f"rope_parameters is {shortened(newer)}; it must be null or an object")
    blocks = newer if isinstance(newer, dict) else {}
    silent = {"rope_type": "default", "rope_theta": None}
    for key, value in blocks.items():
        if key not in (WHOLE, WINDOWED) and (key not in silent or value != silent[key]):
            config.refuse(
                f"rope_parameters.{key} is {shortened(value)}, beside the blocks of {WHOLE} and {WINDOWED}, "
                "where transformers does not read it; put it into one of them"
            )
    block = blocks.get(kind)
    if block is not None and not isinstance(block, dict):
        config.refuse(f"rope_parameters.{kind} is {shortened(block)}; it must be null or an object")
    return block if isinstance(block, dict) else {}


def _merge_rope_scaling(
    config: Config, newer: Any, older: Any, whole: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Puts `rope_scaling` into the block of the layers that see all positions; it must change none there."""
    if older is None:
        return whole
    if not isinstance(older, dict):
        config.refuse(f"rope_scaling is {shortened(older)}; it must be null or an object")
        return whole
    if newer is not None and any(key not in whole or whole[key] != value for key, value in older.items()):
        config.refuse(
            f"rope_scaling {shortened(older)} and rope_parameters.{WHOLE} {shortened(whole)} disagree; "
            "take one out"
        )
    elif newer is not None and not whole:
        config.refuse(f"rope_scaling stands beside rope_parameters without {WHOLE}; take one out")
    if "rope_type" not in older and older.get("type", "default") != "default":
        config.refuse(
            f"rope_scaling.type is {shortened(older['type'])}, which transformers does not read here; "
            "call it rope_type"
        )
    # `older` last: with both given, any difference is reported above
    return {"rope_type": "default", **whole, **older}


def _read_windows(config: Config, kin: Architecture, layers: int) -> tuple[int | None, ...]:
    """Returns the window of each layer; those of Gemma 3 must repeat, for TensorRT-LLM says them so."""
    silent = config.value("layer_types") is None
    # with layer_types the pattern is not used, and need not be right
    every = 2 if not kin.qk_norm or not silent else config.whole("sliding_window_pattern")
    # counted from 1: the last layer of each group sees all positions
    usual = [WINDOWED if (number + 1) % every else WHOLE for number in range(layers)]
    kinds = config_fields.layer_types(config, usual, (WHOLE, WINDOWED))
    window = config.maybe_whole("sliding_window")
    if window is None and WINDOWED in kinds:
        config.refuse(f"sliding_window is null, but layers are of kind {WINDOWED}; give it a value")
    windows = tuple(window if kind == WINDOWED else None for kind in kinds)
    # TensorRT-LLM's GemmaConfig has one number, `_sliding_window_pattern`; other orders cannot be stated.
    if kin.qk_norm and window is not None and window_pattern(windows) is None:
        config.refuse(
            f"layer_types has {WHOLE} in layers "
            f"{', '.join(str(number) for number, kind in enumerate(kinds) if kind == WHOLE)}, "
            f"which do not repeat; supported: {WHOLE} in every n-th layer"
        )
    return windows


def window_pattern(windows: Sequence[int | None]) -> int | None:
    """Returns n where just every n-th layer has no window; n is beyond the layers where all have one."""
    every = next((number + 1 for number, window in enumerate(windows) if window is None), len(windows) + 1)
    fits = all((window is None) == ((number + 1) % every == 0) for number, window in enumerate(windows))
    return every if fits else None
