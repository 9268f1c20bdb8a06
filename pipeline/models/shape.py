"""The shape of a model: sizes and switches, as a value; `pipeline.models.config_json` reads it."""

from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["silu", "gelu_tanh"]
"""Function of the gated MLP; `gelu_tanh` is the tanh approximation of GELU."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in the place of every layer's MLP."""

    count: int
    per_token: int
    """Experts that each token is sent to."""
    intermediate_size: int
    """Inner channels of one expert."""
    shared_intermediate_size: int
    """Inner channels of the expert that every token is sent to besides; 0: there is none."""
    normalized: bool
    """The weights of a token's experts are divided by their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """Inner channels of the MLP; with experts, of one expert."""
    vocab_size: int
    """Tokens the model knows; sharding may pad the tables that it sizes."""
    max_position_embeddings: int
    rms_norm_eps: float
    hidden_act: Activation
    tie_word_embeddings: bool
    """The output head is the embedding table."""
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    """`rope_type` and its own fields; None when positions are not scaled."""
    qkv_bias: bool
    qk_norm: bool
    """RMS norm over each query and key head, before the rotary embedding."""
    windows: tuple[int | None, ...]
    """Positions a token looks back at, per layer; None: all."""
    experts: Experts | None = None
    rope_local_theta: float | None = None
    """Rotary base of the layers with a window, whose positions are not scaled; None: as in all layers."""
    norm_offset: bool = False
    """Norms multiply by one plus their weight."""
    sandwich_norms: bool = False
    """A second norm after the attention and after the MLP, before each residual."""
    embedding_scale: float = 1.0
    """Factor of the embedding's output."""
    query_scale: float | None = None
    """Factor of attention scores; None: one over the square root of `head_dim`."""
    attention_softcap: float | None = None
    """Attention scores become cap * tanh(score / cap)."""
    logit_softcap: float | None = None
    """Logits become cap * tanh(logit / cap)."""
    fused_source: bool = False
    """The source checkpoint holds `qkv_proj` and `gate_up_proj`, each as one tensor."""

    @property
    def q_size(self) -> int:
        """Output channels of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Output channels of the key projection, and of the value projection."""
        return self.num_kv_heads * self.head_dim

    @property
    def folds_smoothing(self) -> bool:
        """AWQ's smoothing of what a norm feeds is in that norm, not beside the linears.

        One plus the norm's weight loses its precision where the product is far below one, and ModelOpt folds
        nothing before a linear that is fused already.
        """
        return not (self.norm_offset or self.fused_source)

    @property
    def sliding_window(self) -> int | None:
        """The narrowest window of any layer; None where every layer sees all positions."""
        return min((window for window in self.windows if window is not None), default=None)
