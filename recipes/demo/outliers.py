"""Give a Llama the few large activation channels that real LLMs have, without changing what it computes."""

import torch
from transformers import LlamaForCausalLM

OUTLIERS = (32.0, 16.0, 16.0, 8.0)
"""Factor per outlier channel of a norm; powers of two, so that bf16 scales exactly."""


@torch.no_grad()
def add_outliers(model: LlamaForCausalLM, factors: tuple[float, ...] = OUTLIERS, seed: int = 0) -> None:
    """Enlarge a few channels of every block's norm and shrink the following linears' columns as much."""
    chooser = torch.Generator().manual_seed(seed)
    scales = torch.tensor(factors)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        followed_by = {
            layer.input_layernorm: (attention.q_proj, attention.k_proj, attention.v_proj),
            layer.post_attention_layernorm: (mlp.gate_proj, mlp.up_proj),
        }
        for norm, linears in followed_by.items():
            channels = torch.randperm(norm.weight.numel(), generator=chooser)[: len(factors)]
            norm.weight[channels] *= scales.to(norm.weight)
            for linear in linears:
                # The opposite factor behind the norm: the model computes the same, and its inputs are hard to
                # round.
                linear.weight[:, channels] /= scales.to(linear.weight)
