"""The shape of a model, read from the `config.json` of its checkpoint; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SourceError


@dataclass(frozen=True, slots=True)
class Family:
    """What an architecture fixes beyond its `config.json`."""

    model_type: str
    qkv_bias: bool
    qk_norm: bool
    kv_heads: int | None
    """Key/value heads when `config.json` does not say; None: as many as attention heads."""
    head_dim: int | None
    """Head size when `config.json` does not say; None: hidden_size / num_heads."""


FAMILIES = {
    "LlamaForCausalLM": Family("llama", qkv_bias=False, qk_norm=False, kv_heads=None, head_dim=None),
    "MistralForCausalLM": Family("mistral", qkv_bias=False, qk_norm=False, kv_heads=8, head_dim=None),
    "Qwen2ForCausalLM": Family("qwen2", qkv_bias=True, qk_norm=False, kv_heads=32, head_dim=None),
    "Qwen3ForCausalLM": Family("qwen3", qkv_bias=False, qk_norm=True, kv_heads=32, head_dim=128),
}
"""Supported architectures; the defaults are those of the transformers 4 and 5 configuration classes."""

DTYPES = ("bfloat16", "float16", "float32")

ROPE_FIELDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor",),
}
"""Supported rotary scalings and the fields each must have."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes and switches of one decoder-only model."""

    architecture: str
    """Class name in transformers, e.g. `LlamaForCausalLM`."""
    model_type: str
    dtype: str
    """Type of the unquantized weights: bfloat16, float16 or float32."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    """Tokens the model knows; sharding may pad the tables that it sizes."""
    max_position_embeddings: int
    rms_norm_eps: float
    hidden_act: str
    tie_word_embeddings: bool
    """The output head is the embedding table."""
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    """`rope_type` and its own fields; None when positions are not scaled."""
    qkv_bias: bool
    qk_norm: bool
    """RMS norm over each query and key head, before the rotary embedding."""
    sliding_window: int | None
    """Positions a token looks back at, in every layer; None: all."""

    @property
    def q_size(self) -> int:
        """Output channels of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Output channels of the key projection, and of the value projection."""
        return self.num_kv_heads * self.head_dim


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Reads a transformers 4 or 5 `config.json`; what no part of the program can do is a SourceError."""
    architecture = _architecture(config)
    family = FAMILIES[architecture]
    _refuse_unsupported(config, architecture)
    hidden, heads = _positive(config, "hidden_size"), _positive(config, "num_attention_heads")
    layers = _positive(config, "num_hidden_layers")
    theta, scaling = _rope(config)
    return ModelShape(
        architecture=architecture,
        model_type=family.model_type,
        dtype=_dtype(config),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=_kv_heads(config, heads, family),
        head_dim=_head_dim(config, hidden, heads, family),
        intermediate_size=_positive(config, "intermediate_size"),
        vocab_size=_positive(config, "vocab_size"),
        max_position_embeddings=_positive(config, "max_position_embeddings"),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        hidden_act="silu",
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        sliding_window=_sliding_window(config, layers, architecture),
    )


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures") or []
    if len(named) != 1 or named[0] not in FAMILIES:
        raise SourceError(
            f"config.json: architectures {named!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return str(named[0])


def _refuse_unsupported(config: Mapping[str, Any], architecture: str) -> None:
    """Refuses switches that change the computation in ways no part of the program follows."""
    for key, allowed in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        if config.get(key, allowed) != allowed:
            raise SourceError(
                f"config.json: {key} {config[key]!r} is not supported for {architecture}; "
                f"supported: {allowed!r}, in {', '.join(FAMILIES)}"
            )
    rotary = (config.get("rope_parameters") or {}).get("partial_rotary_factor", 1)
    partial = config.get("partial_rotary_factor", rotary)
    if partial not in (None, 1, 1.0):
        raise SourceError(
            f"config.json: partial_rotary_factor {partial!r} is not supported; "
            f"supported: 1, in {', '.join(FAMILIES)}"
        )


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"config.json: {key} is {value!r}; it must be a whole number above 0")
    return value


def _dtype(config: Mapping[str, Any]) -> str:
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype not in DTYPES:
        raise SourceError(f"config.json: dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return str(dtype)


def _kv_heads(config: Mapping[str, Any], heads: int, family: Family) -> int:
    given = config.get("num_key_value_heads", family.kv_heads)
    kv_heads = heads if given is None else _positive({"num_key_value_heads": given}, "num_key_value_heads")
    if heads % kv_heads:
        raise SourceError(
            f"config.json: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}; "
            "every key head must serve the same number of query heads"
        )
    return kv_heads


def _head_dim(config: Mapping[str, Any], hidden: int, heads: int, family: Family) -> int:
    given = config.get("head_dim", family.head_dim)
    if given is not None:
        return _positive({"head_dim": given}, "head_dim")
    if hidden % heads:
        raise SourceError(
            f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}; set head_dim"
        )
    return hidden // heads


def _rope(config: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Returns theta and scaling, from `rope_parameters` (transformers 5) or `rope_theta`, `rope_scaling`."""
    given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = given.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    kind = given.pop("rope_type", None) or given.pop("type", None) or "default"
    for key in ("type", "partial_rotary_factor"):
        given.pop(key, None)
    if kind == "default":
        return float(theta), None
    if kind not in ROPE_FIELDS:
        raise SourceError(
            f"config.json: rope_type {kind!r} is not supported; supported: default, {', '.join(ROPE_FIELDS)}"
        )
    missing = [field for field in ROPE_FIELDS[kind] if given.get(field) is None]
    if missing:
        raise SourceError(f"config.json: rope_type {kind!r} lacks {', '.join(missing)}; add them")
    return float(theta), {"rope_type": kind, **given}


def _sliding_window(config: Mapping[str, Any], layers: int, architecture: str) -> int | None:
    """Returns the window that every layer shares; a window in some of the layers only is a SourceError."""
    window = config.get("sliding_window")
    if architecture == "MistralForCausalLM" or window is None:
        return None if window is None else _positive(config, "sliding_window")
    if not architecture.startswith("Qwen") or not config.get("use_sliding_window", False):
        return None
    first = config.get("max_window_layers", 28)
    if first >= layers:
        return None
    if first == 0:
        return _positive(config, "sliding_window")
    raise SourceError(
        f"config.json: sliding_window {window} from layer {first} of {layers} on is not supported; "
        "supported: the same window in every layer, or use_sliding_window false"
    )
