"""EAGLE nets with random weights for the demo model: EAGLE-1 as SafeAILab writes it, and EAGLE-3."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.main_job import DEMO

CONFIG = json.loads((DEMO / "model" / "config.json").read_text()) | {"num_hidden_layers": 1}


def sizes(layer="layers.0", *, captured=1):
    """Shape of every tensor of a net; EAGLE-1 captures one layer of the model, EAGLE-3 three."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    head = CONFIG.get("head_dim") or hidden // CONFIG["num_attention_heads"]
    q, kv = (CONFIG[f"num_{kind}_heads"] * head for kind in ("attention", "key_value"))
    inputs = hidden if captured == 1 else 2 * hidden
    return {
        "embed_tokens.weight": (CONFIG["vocab_size"], hidden),
        "fc.weight": (hidden, 2 * hidden if captured == 1 else captured * hidden),
        f"{layer}.self_attn.q_proj.weight": (q, inputs),
        f"{layer}.self_attn.k_proj.weight": (kv, inputs),
        f"{layer}.self_attn.v_proj.weight": (kv, inputs),
        f"{layer}.self_attn.o_proj.weight": (hidden, q),
        f"{layer}.post_attention_layernorm.weight": (hidden,),
        f"{layer}.mlp.gate_proj.weight": (inner, hidden),
        f"{layer}.mlp.up_proj.weight": (inner, hidden),
        f"{layer}.mlp.down_proj.weight": (hidden, inner),
    }


def write(directory: Path, held, **config) -> Path:
    """A directory with a net of those tensors, without bias or tokenizer."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    random = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(size, generator=random).bfloat16() for name, size in held.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory
