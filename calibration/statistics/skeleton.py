"""A transformers model without weights; one decoder layer at a time gets its weights.

Masks and rotary embeddings come from the model's own forward method, which runs once with layers that only
record their arguments, so that its logic is not repeated here.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from calibration.model.linears import Layout, attention, layout
from calibration.statistics.single_experts import Expert, Experts

EMBEDDING = "model.embed_tokens.weight"


class Skeleton:
    """The decoder layers of a checkpoint's model, on the meta device until `dress` loads their weights."""

    def __init__(self, root: Path, device: torch.device) -> None:
        self.config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        self.device, self.dtype = device, self.config.dtype
        with torch.device("meta"):
            kernel = attention(self.config.to_dict())
            model = AutoModel.from_config(self.config, dtype=self.dtype, attn_implementation=kernel)
        model.eval().requires_grad_(False)  # noqa: FBT003 PyTorch's own
        self.layers = list(model.layers)
        self.layout = layout(self.config.to_dict())
        _split_experts(self.layers, self.layout, self.dtype)
        # The rotary module computes on the host and moves, as a loaded model's does.
        model.rotary_emb = type(model.rotary_emb)(config=model.config).to(device)
        # Only the layers run, so that the norm behind them needs no weight.
        model.norm = nn.Identity()
        # As Gemma's embedding multiplies: by a factor of the model's dtype.
        self.embedding_scale = torch.tensor(getattr(model.embed_tokens, "scalar_embed_scale", 1.0)).to(
            self.dtype
        )
        self._model = model

    def names(self, layer: int) -> list[str]:
        """Names of a layer's tensors in the checkpoint."""
        return [self._name(layer, name) for name in self.layers[layer].state_dict()]

    def _name(self, layer: int, name: str) -> str:
        """A name below a layer as the checkpoint has it; transformers renames the block of experts."""
        kind = self.layout.kind.experts
        if kind is not None and name.startswith(f"{kind.loaded}."):
            name = f"{kind.block}{name.removeprefix(kind.loaded)}"
        return f"model.layers.{layer}.{name}"

    def linears(self, layer: int) -> dict[str, nn.Linear]:
        """The linears of a layer that formats touch, by name in the checkpoint."""
        quantizable = set(self.layout.linears())
        modules = {
            self._name(layer, name): module
            for name, module in self.layers[layer].named_modules()
            if isinstance(module, nn.Linear)
        }
        return {name: module for name, module in modules.items() if name in quantizable}

    def experts(self, layer: int) -> dict[str, Expert]:
        """The experts of a layer, by name in the checkpoint."""
        modules = self.layers[layer].named_modules()
        return {self._name(layer, name): module for name, module in modules if isinstance(module, Expert)}

    def dress(self, layer: int, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """A decoder layer with weights."""
        decoder_layer: nn.Module = self.layers[layer]
        state = {name: tensors[self._name(layer, name)].to(self.dtype) for name in decoder_layer.state_dict()}
        # Assigned, not copied: the tensors are views of the reader's buffer.
        decoder_layer.load_state_dict(state, assign=True)
        return decoder_layer.requires_grad_(False)  # noqa: FBT003 PyTorch's own

    def embed(self, tokens_BT: torch.Tensor, table_VH: torch.Tensor) -> torch.Tensor:
        """The first layer's inputs [B, T, H], of a table in the model's dtype."""
        return nn.functional.embedding(tokens_BT, table_VH) * self.embedding_scale.to(table_VH.device)

    def undress(self, layer: int) -> None:
        """Drops a layer's weights."""
        self.layers[layer].to("meta")

    @cache  # noqa: B019 lives as long as the pass
    def context(self, batch: int, seq_len: int) -> tuple[dict[str, Any], ...]:
        """Each layer's arguments other than the hidden states: mask, positions, rotary embeddings."""
        probes = [_Probe() for _ in self.layers]
        # The model itself prepares mask, positions and rotary embeddings; probes in place of its layers
        # receive them.
        self._model.layers = nn.ModuleList(probes)
        empty = torch.empty(1, 1, 1, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            # One element, expanded: only the shape matters, and a real batch would take its memory.
            self._model(inputs_embeds=empty.expand(batch, seq_len, self.config.hidden_size), use_cache=False)
        return tuple(probe.given for probe in probes)


def _split_experts(layers: list[Any], names: Layout, dtype: torch.dtype) -> None:
    """Puts experts of single linears in the place of the fused ones."""
    kind = names.kind.experts
    if kind is None:
        return
    for layer in layers:
        block = layer.get_submodule(kind.loaded)
        sizes = (block.experts.hidden_dim, block.experts.intermediate_dim)
        block.experts = Experts(names.num_experts, kind.linears, sizes, dtype)


class _Probe(nn.Module):
    """Replaces a decoder layer and records its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def forward(self, hidden: torch.Tensor, **arguments: Any) -> torch.Tensor:
        self.given = arguments
        return hidden
