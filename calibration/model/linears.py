"""Names of a model's linears, fused groups, tensors and files; pure.

The layout is what ModelOpt 0.47's `export_hf_checkpoint` writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Experts:
    """Names of the experts of a layer in a source checkpoint."""

    block: str
    """Module that contains them, below the layer."""
    linears: tuple[str, str, str]
    """An expert's projections gate, up and down."""
    count: str
    """Field of `config.json` with their number."""
    routers: tuple[str, ...]
    """Routers below the block, which are never quantized."""
    loaded: str = "mlp"
    """The block's name in transformers 5, which renames and fuses modules while loading."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The structure of the decoder layers of one `model_type`."""

    groups: tuple[tuple[str, tuple[str, ...], str], ...]
    """Linears that runtimes fuse because they read the same norm's output: block, linears, norm."""
    linears: tuple[str, ...]
    """Linears of a layer, in the order in which transformers names them."""
    experts: Experts | None = None
    """The experts of a layer, whose linears are not among `linears`."""
    folds: bool = True
    """Whether smoothing can be folded into the norms before the linears."""
    tied: bool = False
    """Whether the head shares the embedding's weight by default."""
    capped: bool = False
    """Whether attention scores have a soft cap by default."""


LLAMA = Kind(
    groups=(
        ("self_attn", ("q_proj", "k_proj", "v_proj"), "input_layernorm"),
        ("mlp", ("gate_proj", "up_proj"), "post_attention_layernorm"),
    ),
    linears=(
        *(f"self_attn.{x}_proj" for x in "qkvo"),
        *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
    ),
)

ATTENTION = replace(LLAMA, groups=LLAMA.groups[:1], linears=LLAMA.linears[:4])

MIXTRAL_EXPERTS = Experts("block_sparse_moe", ("w1", "w3", "w2"), "num_local_experts", ("gate",))

QWEN_EXPERTS = Experts(
    "mlp", ("gate_proj", "up_proj", "down_proj"), "num_experts", ("gate", "shared_expert_gate")
)
GEMMA = replace(
    LLAMA,
    groups=(LLAMA.groups[0], ("mlp", ("gate_proj", "up_proj"), "pre_feedforward_layernorm")),
    folds=False,
    tied=True,
)
"""Gemma's norms multiply by one plus their weight. Folded as in ModelOpt, into `(1 + weight) * factor - 1` in
the source dtype, a factor far below one loses most of its bits: 0.03 has an error of 5 % in bfloat16. Such
factors belong to the most important inputs, so smoothing is not folded and stays beside the linears."""

PHI = Kind(
    groups=(
        ("self_attn", ("qkv_proj",), "input_layernorm"),
        ("mlp", ("gate_up_proj",), "post_attention_layernorm"),
    ),
    linears=("self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    folds=False,
)
"""ModelOpt does not fold smoothing before a linear that is fused in the checkpoint."""

KINDS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": replace(GEMMA, capped=True),
    "gemma3_text": GEMMA,
    "phi3": PHI,
    "mixtral": replace(ATTENTION, experts=MIXTRAL_EXPERTS),
    "qwen2_moe": replace(
        ATTENTION,
        groups=(
            *ATTENTION.groups,
            ("mlp.shared_expert", ("gate_proj", "up_proj"), "post_attention_layernorm"),
        ),
        linears=(*ATTENTION.linears, *(f"mlp.shared_expert.{x}_proj" for x in ("gate", "up", "down"))),
        experts=QWEN_EXPERTS,
    ),
}
"""`model_type` of `config.json` -> its layers."""

FIRST = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj", "w3": "w1"}
"""Last part of a linear's name -> that of the first linear that reads the same input."""

EMBEDDING = "model.embed_tokens"
"""Not a linear, but ModelOpt lists it among the excluded modules."""

HEAD = "lm_head"
"""The only linear outside the layers; every preset of ModelOpt excludes it."""

NOT_WRITTEN = "rotary_emb.inv_freq"
"""Part of the names of tensors that older versions of transformers saved and that are not parameters."""

TIED_HEAD = f"{HEAD}.weight"


@dataclass(frozen=True, slots=True)
class Group:
    """Linears of one layer with the same input, and the norm that produces it."""

    linears: tuple[str, ...]
    norm: str
    """Name of the norm module."""
    folds: bool = True
    """Whether their smoothing can be folded into the norm."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of one model's linears and tensors."""

    model_type: str
    """A key of KINDS."""
    num_layers: int
    num_experts: int = 0
    """Experts of each layer."""

    @property
    def kind(self) -> Kind:
        """The structure of each layer."""
        return KINDS[self.model_type]

    def groups(self) -> tuple[Group, ...]:
        """Fused groups of all layers, in order."""
        blocks = (*self.kind.groups, *self._expert_groups())
        return tuple(
            Group(
                tuple(f"model.layers.{layer}.{block}.{name}" for name in names),
                f"model.layers.{layer}.{norm}",
                # All experts read one norm's output, so no expert's own factors can be folded into it.
                folds=self.kind.folds and len(names) > 1 and not self.in_experts(f".{block}."),
            )
            for layer in range(self.num_layers)
            for block, names, norm in blocks
        )

    def _expert_groups(self) -> list[tuple[str, tuple[str, ...], str]]:
        """Gate and up projection of each expert of a layer, as `Kind.groups` has them."""
        if self.kind.experts is None:
            return []
        gate, up, _ = self.kind.experts.linears
        return [(block, (gate, up), "post_attention_layernorm") for block in self._experts()]

    def _experts(self) -> list[str]:
        """The experts of a layer, below it."""
        kind = self.kind.experts
        return [f"{kind.block}.experts.{n}" for n in range(self.num_experts)] if kind else []

    def stacks(self) -> tuple[tuple[str, ...], ...]:
        """Linears of all experts of a layer that runtimes stack: one format and one input scale for all."""
        if self.kind.experts is None:
            return ()
        gate, up, down = self.kind.experts.linears
        return tuple(
            tuple(f"model.layers.{layer}.{expert}.{name}" for expert in self._experts() for name in names)
            for layer in range(self.num_layers)
            # Gate and up read the same input and share its scale; down reads another one.
            for names in ((gate, up), (down,))
        )

    def units(self) -> tuple[tuple[str, ...], ...]:
        """Linears that must have one format: fused groups, and stacks instead of experts' groups."""
        stacks = self.stacks()
        stacked = {name for stack in stacks for name in stack}
        # A stack contains the groups of its experts, so those are not units of their own.
        return (*(each.linears for each in self.groups() if each.linears[0] not in stacked), *stacks)

    def in_experts(self, linear: str) -> bool:
        """Whether a linear belongs to an expert, be it the one for every token."""
        kind = self.kind.experts
        return kind is not None and f".{kind.block}." in linear

    def routers(self) -> tuple[str, ...]:
        """Routers of all layers; they are never quantized."""
        kind = self.kind.experts
        names = [f"{kind.block}.{name}" for name in kind.routers] if kind else []
        return tuple(f"model.layers.{layer}.{name}" for layer in range(self.num_layers) for name in names)

    def linears(self) -> tuple[str, ...]:
        """Linears of all layers, in the model's order; experts after the others of their layer."""
        stacked = self.kind.experts.linears if self.kind.experts else ()
        names = (*self.kind.linears, *(f"{expert}.{name}" for expert in self._experts() for name in stacked))
        return tuple(f"model.layers.{layer}.{name}" for layer in range(self.num_layers) for name in names)


def layout(config: Mapping[str, Any]) -> Layout:
    """The layout of the model that a `config.json` of a known `model_type` describes."""
    experts, count = KINDS[config["model_type"]].experts, 0
    if experts is not None:  # Mixtral's field has a second name, which takes precedence
        count = config["num_experts"] if "num_experts" in config else config[experts.count]
    return Layout(config["model_type"], config["num_hidden_layers"], count)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the head shares the embedding's weight."""
    return bool(config.get("tie_word_embeddings", KINDS[config["model_type"]].tied))


def attention(config: Mapping[str, Any]) -> str:
    """The attention implementation of transformers for the model: its fast one ignores soft caps."""
    kind = KINDS.get(config.get("model_type", ""), LLAMA)
    capped = (
        # An explicit null turns the cap off, a missing field means the default.
        config["attn_logit_softcapping"] is not None if "attn_logit_softcapping" in config else kind.capped
    )
    return "eager" if capped else "sdpa"


def left_out(name: str, *, tied: bool) -> str:
    """Why a source tensor is not written; empty for every tensor of the model."""
    if tied and name == TIED_HEAD:
        return "tied to the embedding, which is written"
    return "a constant that every runtime computes from config.json" if NOT_WRITTEN in name else ""
