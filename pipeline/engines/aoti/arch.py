"""The network that config.json of a sharded checkpoint describes, as one value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.aoti.quantization import (
    FUSED_LINEARS,
    LINEARS,
    MIXTRAL_LINEARS,
    QWEN_MOE_LINEARS,
    LinearFormat,
    kv_cache_of,
    linears_of,
)
from pipeline.errors import SourceError
from pipeline.models.shape import Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """A decoder, in the words of the sharded checkpoint."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    norm_epsilon: float
    rotary_base: float
    rotary_scaling: Mapping[str, Any] | None
    rope_local_base_freq: float | None
    """Rotary base of the layers with a window, whose positions are not scaled; None: as in all layers."""
    layer_windows: tuple[int | None, ...]
    """Positions that a token sees, itself included, per layer of the whole model; None: all before it."""
    hidden_act: str
    """`silu`; `gelu`, its tanh approximation; `swiglu`: silu, where `mlp.fc` holds up and gate projection."""
    inter_layernorms: bool
    """A norm after the attention and after the MLP too, before each residual."""
    norms_round_last: bool
    """Norms multiply by their weight in float32, and round the product only."""
    embedding_scale: float
    query_pre_attn_scalar: float | None
    """Attention scores are divided by its square root; None: by that of `head_size`."""
    attn_logit_softcapping: float | None
    final_logit_softcapping: float | None
    qk_layernorm: bool
    attn_bias: bool
    dtype: str
    tp: int
    pp: int
    ep: int
    """Of the `tp` ranks, how many hold different experts."""
    experts: Experts | None
    linears: tuple[Mapping[str, LinearFormat], ...]
    """Per layer of the whole model: linear, e.g. `attention.qkv`, and its format."""
    kv_cache: str
    """`auto`: the compute dtype; `fp8` or `int8`: eight bits with one scale per layer."""

    @property
    def sources(self) -> Mapping[str, str]:
        """Linears of a layer, and the source linear whose format each has."""
        return sources_of(self.hidden_act, self.experts)

    @property
    def attention_scale(self) -> float:
        """Factor of attention scores."""
        return float((self.query_pre_attn_scalar or self.head_size) ** -0.5)

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.tp * self.pp

    @property
    def stage_layers(self) -> int:
        """Layers of one pipeline stage."""
        return self.num_hidden_layers // self.pp

    @property
    def rank_heads(self) -> int:
        """Query heads of one rank."""
        return self.num_attention_heads // self.tp

    @property
    def rank_kv_heads(self) -> int:
        """KV heads of one rank; duplicated when there are fewer heads than ranks."""
        return max(1, self.num_key_value_heads // self.tp)

    @property
    def rank_vocab(self) -> int:
        """Vocabulary rows of one rank, padding included."""
        return -(-self.vocab_size // self.tp)

    @property
    def formats(self) -> Mapping[str, int]:
        """Format name -> linears of the whole model that have it, by name."""
        names = [linear.format for layer in self.linears for linear in layer.values()]
        return {name: names.count(name) for name in sorted(set(names))}

    @property
    def format(self) -> str:
        """The format of all linears, or `mixed`."""
        return "mixed" if len(self.formats) > 1 else next(iter(self.formats))

    def stage_linears(self, stage: int) -> tuple[Mapping[str, LinearFormat], ...]:
        """The layers of one pipeline stage."""
        return self.linears[stage * self.stage_layers : (stage + 1) * self.stage_layers]

    def stage_windows(self, stage: int) -> tuple[int | None, ...]:
        """The windows of one pipeline stage's layers."""
        return self.layer_windows[stage * self.stage_layers : (stage + 1) * self.stage_layers]

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """Bytes of KV cache that one token takes on one rank."""
        return 2 * self.stage_layers * self.rank_kv_heads * self.head_size * element_bytes


def sources_of(hidden_act: str, experts: Experts | None) -> Mapping[str, str]:
    """Returns the linears of a layer, and the source linear whose format each has."""
    if experts is not None:
        return QWEN_MOE_LINEARS if experts.shared_intermediate_size else MIXTRAL_LINEARS
    return FUSED_LINEARS if hidden_act == "swiglu" else LINEARS


def read_arch(checkpoint: Path) -> Arch:
    """Parses the files in `checkpoint`; raises SourceError when a field is missing or not supported."""
    path = checkpoint / "config.json"
    raw = json.loads(path.read_text())
    try:
        return _parse(raw, checkpoint)
    except KeyError as exc:
        raise SourceError(f"{path}: field {exc.args[0]!r} is missing; convert the checkpoint again") from exc


def _parse(raw: Mapping[str, Any], checkpoint: Path) -> Arch:
    quantization, mapping = raw.get("quantization") or {}, raw.get("mapping") or {}
    heads, num_layers = raw["num_attention_heads"], raw["num_hidden_layers"]
    experts, hidden_act = _experts(raw), raw.get("hidden_act", "silu")
    return Arch(
        hidden_size=raw["hidden_size"],
        num_hidden_layers=num_layers,
        num_attention_heads=heads,
        num_key_value_heads=raw.get("num_key_value_heads", heads),
        # Not every model has hidden_size / heads: the field decides where there is one.
        head_size=raw.get("head_size") or raw["hidden_size"] // heads,
        intermediate_size=raw["intermediate_size"],
        vocab_size=raw["vocab_size"],
        norm_epsilon=raw["norm_epsilon"],
        rotary_base=raw["rotary_base"],
        rotary_scaling=_scaling(raw),
        rope_local_base_freq=raw.get("rope_local_base_freq"),
        # Without a list of its own, a window is that of every layer.
        layer_windows=tuple(raw.get("layer_windows") or [raw.get("sliding_window")] * num_layers),
        hidden_act=hidden_act,
        inter_layernorms=bool(raw.get("inter_layernorms", False)),
        norms_round_last=bool(raw.get("norms_round_last", False)),
        embedding_scale=raw.get("embedding_scale", 1.0),
        query_pre_attn_scalar=raw.get("query_pre_attn_scalar"),
        attn_logit_softcapping=raw.get("attn_logit_softcapping"),
        final_logit_softcapping=raw.get("final_logit_softcapping"),
        qk_layernorm=bool(raw.get("qk_layernorm", False)),
        attn_bias=bool(raw.get("attn_bias", False)),
        dtype=raw["dtype"],
        tp=mapping.get("tp_size", 1),
        pp=mapping.get("pp_size", 1),
        ep=mapping.get("moe_ep_size", 1),
        experts=experts,
        linears=linears_of(quantization, num_layers, checkpoint, sources_of(hidden_act, experts)),
        kv_cache=kv_cache_of(quantization),
    )


def _experts(raw: Mapping[str, Any]) -> Experts | None:
    """Returns the experts of every layer; None for a dense network."""
    moe = raw.get("moe")
    if not moe:
        return None
    return Experts(
        count=moe["num_experts"],
        per_token=moe["top_k"],
        intermediate_size=raw.get("moe_intermediate_size", raw["intermediate_size"]),
        shared_intermediate_size=raw.get("moe_shared_expert_intermediate_size", 0),
        normalized=bool(moe["normalization_mode"]),
    )


def _scaling(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the rotary scaling, whose factors per channel stand in fields of their own."""
    short = raw.get("longrope_scaling_short_factors")
    if short is None:
        return raw.get("rotary_scaling")
    original = raw["original_max_position_embeddings"]
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "original_max_position_embeddings": original,
        "factor": raw["max_position_embeddings"] / original,  # how far the context was stretched
    }
