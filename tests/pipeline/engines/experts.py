"""Tiny models with experts: source, quantized and sharded checkpoints, and transformers as the reference.

The reference multiplies what it dequantizes, expert by expert, and really rounds inputs.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 its usual name
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from recipes.precision import Precision
from tests.calibration.reference import dequantized, e4m3
from tests.calibration.statistics.passes import job, run, write_tokens
from tests.checkpoints import TOKENIZER
from tests.jobs import build_quantized as quantize
from tests.jobs import build_sharded as convert

SIZES = {
    "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 384, "max_position_embeddings": 64, "num_experts_per_tok": 2,
}  # fmt: skip
FAMILIES = {
    "mixtral": {"intermediate_size": 256, "num_local_experts": 4},
    "qwen2_moe": {
        "intermediate_size": 64, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512,
        "num_experts": 12, "norm_topk_prob": False,
    },
}  # fmt: skip
"""Twelve experts are more than are multiplied at once."""
NAMES = {"mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
         "qwen2_moe": ("mlp", "gate_proj", "up_proj", "down_proj")}  # fmt: skip


def source(root: Path, family: str, dtype: torch.dtype = torch.float32, **changes) -> Path:
    """Writes a random model whose logits and routes vary; returns its directory."""
    torch.manual_seed(0)
    named = {"mixtral": "Mixtral", "qwen2_moe": "Qwen2Moe"}[family]
    sizes = SIZES | FAMILIES[family] | changes
    config = AutoConfig.for_model(family, **sizes, architectures=[f"{named}ForCausalLM"])
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("mlp.gate.weight"):
                parameter.normal_(std=0.2)
            else:
                parameter.mul_(3)
    model.save_pretrained(root)
    (root / "tokenizer.json").write_bytes(TOKENIZER)
    return root


def quantized(root: Path, checkpoint: Path, fmt, kv_cache: str = "auto") -> Path:
    """Writes the checkpoint in a format, from ranges that are recorded where it needs any."""
    if fmt == "none":
        return checkpoint
    inputs = {"source": str(checkpoint)}
    if Precision.parse(fmt).needs != "none" or kv_cache != "auto":
        write_tokens(root / "tokens", sequences=9)
        run(job(checkpoint, root / "tokens", root / "resume", record="ranges"), root / "statistics")
        inputs["statistics"] = str(root / "statistics")
    out = root / "quantized"
    out.mkdir()
    params = {"format": fmt, "kv_cache": kv_cache}
    quantize({"params": params, "places": {}, "inputs": inputs}, out, lambda *_: None)
    (out / "tokenizer.json").write_bytes(TOKENIZER)
    return out


def shard(checkpoint: Path, fmt, layout: tuple[int, int, int], out: Path, names: str = "") -> Path:
    """Writes the sharded checkpoint for (tp, pp, ep); `names` are the last release's with older ones."""
    out.mkdir()
    tp, pp, ep = layout
    params = {"tp": tp, "pp": pp, "ep": ep, "format": fmt, "layout_version": LAYOUT_VERSION}
    params |= {"names": names} if names else {}
    convert({"params": params, "places": {}, "inputs": {"checkpoint": str(checkpoint)}}, out, lambda *_: None)
    return out


class Linear(nn.Module):
    """One linear of a checkpoint, dequantized."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        weight, scale = tensors[f"{name}.weight"], tensors.get(f"{name}.weight_scale")
        self.weight = weight.float() if scale is None else dequantized(weight, scale)
        self.bias = tensors.get(f"{name}.bias")
        self.input_scale = tensors.get(f"{name}.input_scale")

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to rounded inputs."""
        x = x if self.input_scale is None else e4m3(x, self.input_scale)
        return F.linear(x, self.weight, self.bias)


class Experts(nn.Module):
    """All experts of a layer, each in turn."""

    def __init__(self, tensors: Mapping[str, Tensor], block: str, names: tuple[str, ...], count: int) -> None:
        super().__init__()
        self.experts = [
            [Linear(tensors, f"{block}.experts.{number}.{name}") for name in names] for number in range(count)
        ]

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Adds up what the chosen experts make of each token."""
        out = torch.zeros_like(x)
        for number, (gate, up, down) in enumerate(self.experts):
            rows, places = torch.where(chosen == number)
            made = down(F.silu(gate(x[rows])) * up(x[rows]))
            out.index_add_(0, rows, made * weights[rows, places, None])
        return out


def reference(checkpoint: Path) -> nn.Module:
    """The transformers model of a source or quantized checkpoint, in float32."""
    tensors = load_file(checkpoint / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("quantization_config", None)
    block, *names = NAMES[config["model_type"]]
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).float().eval()
    renamed = {name.replace(f".{block}.", ".mlp."): tensor for name, tensor in tensors.items()}
    plain = {n: t.float() for n, t in renamed.items() if n in made.state_dict() and t.is_floating_point()}
    made.load_state_dict({n: t for n, t in plain.items() if f"{n}_scale" not in renamed}, strict=False)
    for number, layer in enumerate(made.model.layers):
        own = f"model.layers.{number}"
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear):
                layer.set_submodule(name, Linear(renamed, f"{own}.{name}"))
        layer.mlp.experts = Experts(tensors, f"{own}.{block}", tuple(names), layer.mlp.experts.num_experts)
    return made
