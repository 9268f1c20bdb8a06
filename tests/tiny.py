"""Tiny random checkpoints of any architecture that `pipeline.models.config_json` reads, made by transformers."""

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.checkpoints import TOKENIZER

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 251, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4}
OWN: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                             "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "MixtralForCausalLM": EXPERTS,
    "Qwen2MoeForCausalLM": EXPERTS | {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512},
    "Gemma2ForCausalLM": {"query_pre_attn_scalar": 48, "sliding_window": 8, "attn_logit_softcapping": 20.0,
                          "final_logit_softcapping": 10.0},
    "Gemma3ForCausalLM": {"query_pre_attn_scalar": 48, "sliding_window": 8, "sliding_window_pattern": 2},
}  # fmt: skip
"""What makes a family itself; of others, the defaults of their configuration class."""


def config(architecture: str, **changes: Any) -> Any:
    """A configuration of the architecture's own class."""
    fields = SIZES | OWN.get(architecture, {}) | changes
    made = getattr(transformers, architecture).config_class(**fields)
    made.architectures = [architecture]
    return made


def source(
    architecture: str, directory: Path, dtype: torch.dtype = torch.float32, **changes: Any
) -> torch.nn.Module:
    """Writes a random model whose biases and norms are not what they start as; returns the model.

    Its attention is the plain one: torch's fused one knows no soft caps.
    """
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config(architecture, **changes), dtype=dtype, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(3)
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(TOKENIZER)
    return model
