"""Medusa heads with random weights, in the layout of FasterDecoding/Medusa."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.main_job import DEMO


def tensors(hidden, vocab, *, heads=2, layers=1, dtype=torch.bfloat16):
    """Weights of each head: residual layers with bias, and an output head."""
    random = torch.Generator().manual_seed(0)
    made = {}
    for head in range(heads):
        for layer in range(layers):
            made[f"{head}.{layer}.linear.weight"] = torch.randn(hidden, hidden, generator=random)
            made[f"{head}.{layer}.linear.bias"] = torch.randn(hidden, generator=random)
        made[f"{head}.{layers}.weight"] = torch.randn(vocab, hidden, generator=random)
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def write(directory: Path, held, **config) -> Path:
    """A directory with those tensors; its config.json says less heads than there are, as published ones do."""
    directory.mkdir()
    said = {"medusa_num_heads": 1, "medusa_num_layers": 1, "base_model_name_or_path": "demo"} | config
    (directory / "config.json").write_text(json.dumps(said))
    save_file(held, directory / "medusa_lm_head.safetensors")
    return directory


def demo_heads(directory: Path, **change) -> Path:
    """Heads for the demo model, in its type."""
    said = json.loads((DEMO / "model" / "config.json").read_text())
    sizes = {"hidden": said["hidden_size"], "vocab": said["vocab_size"]} | change
    return write(directory, tensors(**sizes))
